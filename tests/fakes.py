"""In-memory stand-ins for the ports; each passes the contract tests of the real adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from app.domain import (
    Candidates,
    Erasure,
    Event,
    EventType,
    Float32s,
    Int32s,
    ItemId,
    SearchFilter,
    StreamEntry,
    UserEvents,
    UserId,
    event_order,
)
from app.errors import DependencyUnavailable
from app.ports import UserState
from app.windows import SlotCounts
from training.model.bundle import Bundle


async def users_of(state: UserState, user_ids: Sequence[UserId]) -> list[UserEvents]:
    """The users as the state has them; what a record says unparsed is what it says parsed."""
    records = await state.read(user_ids)
    users = [record.parsed() for record in records]
    for record, user in zip(records, users, strict=True):
        assert record.revision == user.revision
        assert user.stored is None or record.as_of_s == user.as_of_s
    return users


class FakeUserState:
    """The UserState and Erasures ports in dictionaries; `away = True` makes them fail."""

    def __init__(self) -> None:
        self.stream: list[Event] = []
        self.away = False
        self.erased: dict[str, Erasure] = {}
        self.recent = 0  # events that are of the last five minutes
        self._ids = 0
        self._events: dict[str, list[tuple[ItemId, EventType]]] = {}
        self._revisions: dict[str, str] = {}

    async def read(self, user_ids: Sequence[UserId]) -> list[UserEvents]:
        self._check()
        return [self._known(str(user)) for user in user_ids]

    def _known(self, user: str) -> UserEvents:
        events = tuple(self._events.get(user, ()))
        return UserEvents(
            self._revisions.get(user, "0"),
            events,
            min(self.recent, len(events)),
            user in self.erased,
        )

    async def append(self, event: Event) -> str:
        self._check()
        self.stream.append(event)
        events = self._events.setdefault(str(event.user_id), [])
        events.append((str(event.item_id), event.event_type))
        revision = self._next_id()
        self._revisions[str(event.user_id)] = revision
        return revision

    async def ping(self) -> None:
        self._check()

    async def begin(self, user_id: UserId) -> Erasure:
        self._check()
        user = str(user_id)
        removed = dict(self.erased[user].removed) if user in self.erased else {"state": 0}
        removed["state"] += len(self._events.pop(user, []))
        self._revisions[user] = self._next_id()
        note = Erasure(user, self._revisions[user], "2026-01-01T00:00:00+00:00", removed)
        self.erased[user] = note
        return note

    async def note(self, erasure: Erasure) -> None:
        self._check()
        self.erased[erasure.user_id] = erasure

    async def all(self) -> dict[str, Erasure]:
        self._check()
        return dict(self.erased)

    def _next_id(self) -> str:
        self._ids += 1
        return f"{self._ids}-0"

    def _check(self) -> None:
        if self.away:
            raise DependencyUnavailable("user state: away")


class FakeSlateCache:
    """The SlateCache port in a dictionary; `away = True` makes it fail."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.away = False

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        self._check()
        return [self.values.get(key) for key in keys]

    async def put(self, slates: Mapping[str, bytes]) -> None:
        self._check()
        self.values.update(slates)

    async def keys(self, prefix: str) -> list[str]:
        self._check()
        return [key for key in self.values if key.startswith(prefix)]

    async def drop(self, keys: Sequence[str]) -> None:
        self._check()
        for key in keys:
            self.values.pop(key, None)

    def _check(self) -> None:
        if self.away:
            raise DependencyUnavailable("cache: away")


class FakeVectorIndex:
    """The VectorIndex port by brute force over a bundle; `away = True` makes it fail."""

    def __init__(self, bundle: Bundle) -> None:
        self.away = False
        self._vectors = bundle.item_vectors
        self._items = bundle.items

    async def prepare(self) -> None:
        """Always ready."""

    async def search(
        self, vectors: Float32s, filters: Sequence[SearchFilter], limits: Sequence[int]
    ) -> Candidates:
        if self.away:
            raise DependencyUnavailable("index: away")
        rows = [
            self._best(vector, wanted, limit)
            for vector, wanted, limit in zip(vectors, filters, limits, strict=True)
        ]
        width = max((len(items) for items, _ in rows), default=0)
        found = Candidates(
            np.full((len(rows), width), -1, np.int32),
            np.full((len(rows), width), -np.inf, np.float32),
        )
        for b, (items, scores) in enumerate(rows):
            found.items[b, : len(items)] = items
            found.scores[b, : len(items)] = scores
        return found

    def _best(self, vector: Float32s, wanted: SearchFilter, limit: int) -> tuple[Int32s, Float32s]:
        scores = self._vectors @ vector
        scores[wanted.exclude] = -np.inf
        allowed = [i for i in range(len(scores)) if self._allows(wanted, i)]
        order = np.array(allowed, np.int32)[np.argsort(-scores[allowed], kind="stable")]
        order = order[np.isfinite(scores[order])][:limit]
        return order, scores[order]

    def _allows(self, wanted: SearchFilter, item: int) -> bool:
        genres, year = self._items.genres[item], self._items.years[item]
        rating = self._items.avg_rating[item]
        return (
            (not wanted.genres or bool(set(wanted.genres) & set(genres)))
            and (wanted.min_rating is None or bool(rating >= np.float32(wanted.min_rating)))
            and (wanted.year_from is None or (year is not None and year >= wanted.year_from))
            and (wanted.year_to is None or (year is not None and year <= wanted.year_to))
        )


class FakeEventStream:
    """The EventStream port in a list."""

    def __init__(self) -> None:
        self.entries: list[StreamEntry] = []

    async def read(self, after: str, limit: int) -> list[StreamEntry]:
        position = event_order(after)
        return [e for e in self.entries if event_order(e.event_id) > position][:limit]

    async def append(self, entries: Sequence[StreamEntry]) -> None:
        for entry in entries:
            newest = self.entries[-1].event_id if self.entries else "0-0"
            if event_order(entry.event_id) > event_order(newest):
                self.entries.append(entry)

    async def find(self, user_id: UserId, upto: str) -> list[str]:
        return [
            entry.event_id
            for entry in self.entries
            if entry.event.user_id == str(user_id)
            and event_order(entry.event_id) <= event_order(upto)
        ]

    async def remove(self, event_ids: Sequence[str]) -> None:
        self.entries = [entry for entry in self.entries if entry.event_id not in event_ids]


class FakeWindowCounts:
    """The WindowCounts port in a dictionary of slots; `away = True` makes it fail."""

    def __init__(self) -> None:
        self.slots: dict[int, SlotCounts] = {}
        self.asked: list[list[int]] = []
        self.away = False

    async def read(self, slots: Sequence[int]) -> list[SlotCounts]:
        if self.away:
            raise DependencyUnavailable("windows: away")
        self.asked.append(list(slots))
        return [self.slots.get(slot, {}) for slot in slots]
