"""Joins what the bundle, the online state and the request know of a user into one history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.domain import (
    WATCHED_EVENTS,
    EventType,
    Float32s,
    Histories,
    Int32s,
    Query,
    UserEvents,
)
from app.stages.user_features import Sums, stored_inputs
from training.model.bundle import Bundle
from training.model.ranking import USER_INPUTS

_NONE = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True)
class Known:
    """One user of a batch. history: item_idx, oldest first, what the tower reads.
    excluded: item_idx that must not be recommended. row: in the bundle, -1 when unknown to it.
    recent: how many of the newest items of the history are of the last five minutes.
    looked_at: items of the history that the user only viewed or clicked.
    sums: of the online store, None when it has nothing newer of the user than the bundle."""

    row: int
    history: Int32s
    excluded: Int32s
    recent: int = 0
    sums: Sums | None = None
    looked_at: frozenset[int] = frozenset()


def known(bundle: Bundle, query: Query, state: UserEvents) -> Known:
    """Past history, then the request's own, then feedback; a later mention of an item wins.

    The past is the bundle's, or the online store's where its data is newer; a store that is older
    than the bundle is passed over. Disliked items leave
    the history and are excluded whatever the query says; items the bundle does not have are passed
    over. Of an erased user the bundle is not asked.
    """
    row = -1 if state.erased else bundle.user_row(query.user_id)
    history = _past(bundle, row, state)
    sums = _sums(bundle, state)
    excluded = _indices(bundle, query.exclude_ids)
    if not state.events and not query.history:
        seen = _join(history, excluded) if query.exclude_watched else excluded
        return Known(row, history, seen, sums=sums)

    given = _indices(bundle, query.history)
    latest: dict[int, EventType] = {}
    watched: list[int] = []
    oldest_recent = len(state.events) - state.recent
    recent: set[int] = set()
    for place, (item_id, event_type) in enumerate(state.events):
        item = bundle.item_index(item_id)
        if item < 0:
            continue
        if place >= oldest_recent:
            recent.add(item)
        latest.pop(item, None)  # so that the dict's order is that of the latest mention
        latest[item] = event_type
        if event_type in WATCHED_EVENTS:
            watched.append(item)
    disliked = [item for item, kind in latest.items() if kind is EventType.DISLIKE]
    liked = [item for item, kind in latest.items() if kind is not EventType.DISLIKE]
    past = _join(history, given)
    mentioned = np.fromiter(latest, np.int32, len(latest))
    unmentioned = np.ones(len(bundle.items), bool)
    unmentioned[mentioned] = False
    kept = unmentioned[past]
    merged = _join(past[kept], np.array(liked, np.int32))
    looked_at = frozenset(liked).difference(watched, past[~kept].tolist())
    parts = [excluded, np.array(disliked, np.int32)]
    if query.exclude_watched:
        parts += [past, np.array(watched, np.int32)]
    count = len(recent.difference(disliked))
    return Known(row, merged, np.concatenate(parts), count, sums, looked_at)


def _past(bundle: Bundle, row: int, state: UserEvents) -> Int32s:
    """What the user did up to the bundle's data or, when that is newer, the online store's."""
    stored = state.stored
    if stored is not None and stored.as_of_s > _newest_event_s(bundle):
        return _indices(bundle, stored.item_ids)
    if row < 0:
        return _NONE
    return bundle.user_history[bundle.user_offsets[row] : bundle.user_offsets[row + 1]]


def _sums(bundle: Bundle, state: UserEvents) -> Sums | None:
    if state.stored is None or state.stored.as_of_s < _newest_event_s(bundle):
        return None
    return Sums.of(state.stored, state)


def _newest_event_s(bundle: Bundle) -> float:
    """Time of the newest event that the bundle was made of; inf when its data has no times."""
    times = bundle.manifest.data.statistics.get("time_range")
    return times[1] if times else np.inf


def batch_histories(users: Sequence[Known]) -> Histories:
    """The users' histories as one ragged array."""
    offsets = np.zeros(len(users) + 1, np.int64)
    np.cumsum([len(user.history) for user in users], out=offsets[1:])
    items = np.concatenate([user.history for user in users]) if users else _NONE
    rows = np.fromiter((user.row for user in users), np.int32, len(users))
    recent = np.fromiter((user.recent for user in users), np.int32, len(users))
    features = _features(users)
    return Histories(items.astype(np.int32, copy=False), offsets, rows, recent, features)


def _features(users: Sequence[Known]) -> Float32s | None:
    stored = [(b, user.sums) for b, user in enumerate(users) if user.sums is not None]
    if not stored:
        return None
    features = np.full((len(users), len(USER_INPUTS)), np.nan, np.float32)
    features[[b for b, _ in stored]] = stored_inputs([sums for _, sums in stored])
    return features


def _indices(bundle: Bundle, item_ids: Sequence[int | str]) -> Int32s:
    found = [i for item_id in item_ids if (i := bundle.item_index(item_id)) >= 0]
    return np.array(found, np.int32)


def _join(first: Int32s, second: Int32s) -> Int32s:
    if not len(second):
        return first
    return np.concatenate([first, second]) if len(first) else second
