"""The words of the online side, as frozen values. No I/O, no framework.

Users and items are named by their own ids at the edges and by `item_idx` (a row of the bundle's
arrays, int32) inside. An item_idx means something only together with the bundle version it
came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from app.rules import Rules

ItemId = int | str
UserId = int | str
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]


class EventType(StrEnum):
    """What a user did with an item."""

    CLICK = "click"
    VIEW = "view"
    WATCH = "watch"
    LIKE = "like"
    DISLIKE = "dislike"


# Finished with: never offered again while `exclude_watched` holds.
WATCHED_EVENTS = frozenset({EventType.WATCH, EventType.LIKE})


@dataclass(frozen=True, slots=True)
class Event:
    """One acknowledged piece of feedback."""

    user_id: UserId
    item_id: ItemId
    event_type: EventType
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """An event as the stream has it. `event_id` is "<milliseconds>-<number>": later events have
    greater ids, compared as two numbers, and no two events have the same."""

    event_id: str
    event: Event


def event_order(event_id: str) -> tuple[int, int]:
    """What event ids are compared by; ValueError for a text that is none."""
    milliseconds, _, number = event_id.partition("-")
    return int(milliseconds), int(number)


@dataclass(frozen=True, slots=True)
class StoredUser:
    """What the offline store knows of a user, as `marquee features materialize` loaded it.

    as_of_s: time of the data's newest event, unix seconds. position: the newest event id of the
    event log that the data holds; feedback after it is not in it yet. totals: the values of
    training.model.user_features.UserTotals, in order. item_ids: all events' items, oldest first.
    """

    as_of_s: int
    position: str
    totals: tuple[float, ...]
    item_ids: tuple[ItemId, ...]


@dataclass(frozen=True, slots=True)
class UserEvents:
    """What the online state knows of one user: feedback since the bundle was made.

    `revision` changes with every acknowledged event ("0" before the first); a slate computed from
    one revision is never served for another. `recent` of the events, the newest ones, are of the
    last five minutes. Of an erased user nothing else is known: not what the bundle holds either.
    """

    revision: str = "0"
    events: tuple[tuple[ItemId, EventType], ...] = ()  # oldest first
    recent: int = 0
    erased: bool = False
    stored: StoredUser | None = None
    event_ids: tuple[str, ...] = ()  # of the events; empty without `stored`

    @property
    def as_of_s(self) -> int | None:
        """Time of the stored data, unix seconds; None without."""
        return None if self.stored is None else self.stored.as_of_s

    def parsed(self) -> UserEvents:
        """See app.ports.UserRecord."""
        return self


@dataclass(frozen=True, slots=True)
class Erasure:
    """The record of a user's erasure, and the receipt for it.

    event_id: events up to it are gone; the user of later ones is a new one. removed: how much of
    the user was in each place, over all erasures of the user. A record that is not finished was
    interrupted: erase again.
    """

    user_id: str
    event_id: str
    erased_at: str  # ISO 8601, UTC
    removed: dict[str, int]
    is_finished: bool = False


@dataclass(frozen=True, slots=True)
class SearchFilter:
    """What an item must satisfy to be a candidate. Evaluated inside the index."""

    genres: tuple[str, ...] = ()  # any of; empty = no condition
    min_rating: float | None = None  # against the item's average rating
    year_from: int | None = None  # inclusive
    year_to: int | None = None  # inclusive
    exclude: Int32s = field(default_factory=lambda: np.empty(0, np.int32))  # item_idx


@dataclass(frozen=True, slots=True)
class Query:
    """One request for a slate."""

    user_id: UserId
    limit: int = 10
    genres: tuple[str, ...] = ()
    min_rating: float | None = None
    year_from: int | None = None
    year_to: int | None = None
    exclude_watched: bool = True
    exclude_ids: tuple[ItemId, ...] = ()
    history: tuple[ItemId, ...] = ()  # what the caller knows of the user, oldest first
    read_cache: bool = True
    rules: Rules | None = None
    explain: bool = False  # say of every item how it got its place
    explain_item: ItemId | None = None  # and of this one why it is not there

    @property
    def is_traced(self) -> bool:
        """Whether the answer says how it came about; such a slate is not cached."""
        return self.explain or self.explain_item is not None

    @property
    def is_cached(self) -> bool:
        """Whether its slate may come from the cache."""
        return self.read_cache and not self.is_traced


@dataclass(frozen=True, slots=True)
class Histories:
    """Histories of a batch as two arrays, so that a batch crosses a process as one object.

    items: int32 item_idx of all users in a row, each user's oldest first.
    offsets: int64[B+1]; user b owns items[offsets[b]:offsets[b+1]].
    users: int32[B] row of the user in the bundle, -1 for a user it does not know.
    recent: int32[B] how many of a user's newest items are of the last five minutes; None: unknown.
    features: float32[B,F] the ranker's USER_INPUTS from the online store, NaN rows for those whom
    it does not have; None when it has nobody.
    """

    items: Int32s
    offsets: Int64s
    users: Int32s
    recent: Int32s | None = None
    features: Float32s | None = None

    def of(self, b: int) -> Int32s:
        """The history of the batch's user b."""
        return self.items[self.offsets[b] : self.offsets[b + 1]]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Retrieved items of a batch: items int32[B,K] (-1 = padding, only at the end of a row) and
    scores float32[B,K], each row in descending order of score."""

    items: Int32s
    scores: Float32s


class Strategy(StrEnum):
    """How a slate was made."""

    PERSONAL = "personal"
    POPULAR = "popular"


@dataclass(frozen=True, slots=True)
class Slate:
    """What answers a query.

    recommendations: a JSON array, rendered once and cached in this form.
    degraded: names of what had to be done without ("user_state", "cache", "embed", "retrieve",
        "rank"); empty when everything worked.
    explained: what `explain_item` asked, as JSON.
    """

    recommendations: bytes
    strategy: Strategy
    model_version: str
    degraded: tuple[str, ...] = ()
    from_cache: bool = False
    explained: bytes | None = None
