"""The ranker's view of a user from the online store: what was loaded, and feedback since."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.domain import Float32s, Histories, ItemId, StoredUser, UserEvents, event_order
from training.model.ranking import USER_INPUTS
from training.model.user_features import (
    POSITIVE_EVENTS,
    WITHDRAWN_BY,
    UserTotals,
    user_inputs,
)


@dataclass(frozen=True, slots=True)
class Sums:
    """A user of the store, and times (unix seconds) of the feedback that the store has not got."""

    stored: StoredUser
    new_events_s: list[float]

    @classmethod
    def of(cls, stored: StoredUser, state: UserEvents) -> Sums:
        """The user's sums up to the newest feedback."""
        return cls(stored, new_events_s(state, stored.position))


def stored_inputs(users: Sequence[Sums]) -> Float32s:
    """USER_INPUTS float32[B,F]: the definition that training uses.

    The present is the newest event of the data, or of the user if that is newer. So a model that
    was trained on old events sees no user as long gone only because time went by.
    """
    totals = UserTotals(*np.array([user.stored.totals for user in users]).T)
    count = np.array([float(len(user.new_events_s)) for user in users])
    first = np.array([min(user.new_events_s, default=np.nan) for user in users])
    last = np.array([max(user.new_events_s, default=np.nan) for user in users])
    as_of = np.array([float(user.stored.as_of_s) for user in users])
    return user_inputs(totals.with_unrated(count, first, last), np.fmax(as_of, last))


def ranker_inputs(histories: Histories, in_bundle: Float32s) -> Float32s:
    """USER_INPUTS float32[B,F] of a batch: the online store's word, else the bundle's, NaN for
    users whom neither knows. in_bundle: float32[U,F], the bundle's by row."""
    inputs = np.full((len(histories.users), len(USER_INPUTS)), np.nan, np.float32)
    known = histories.users >= 0
    inputs[known] = in_bundle[histories.users[known]]
    if histories.features is not None:
        stored = ~np.isnan(histories.features).all(axis=1)
        inputs[stored] = histories.features[stored]
    return inputs


def named(inputs: Float32s) -> dict[str, float | None] | None:
    """One user's USER_INPUTS by name, None for what is not known; None when nothing is."""
    values = zip(USER_INPUTS, inputs.tolist(), strict=True)
    told = {name: None if math.isnan(value) else value for name, value in values}
    return told if any(value is not None for value in told.values()) else None


def new_events_s(state: UserEvents, position: str) -> list[float]:
    """Times, unix seconds, of the feedback that the data does not have yet and would count.

    That is the first positive event with every item, unless a dislike is the newest word on it.
    """
    first: dict[ItemId, str] = {}
    newest: dict[ItemId, str] = {}
    for event_id, (item_id, kind) in zip(state.event_ids, state.events, strict=True):
        newest[item_id] = kind
        if kind in POSITIVE_EVENTS:
            first.setdefault(item_id, event_id)
    after = event_order(position)
    return [
        float(event_order(event_id)[0] // 1000)
        for item_id, event_id in first.items()
        if newest[item_id] != WITHDRAWN_BY and event_order(event_id) > after
    ]
