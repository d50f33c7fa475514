"""In-memory stand-ins for the ports; each passes the contract tests of the real adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from app.domain import (
    Candidates,
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
from training.model.bundle import Bundle


class FakeUserState:
    """The UserState port in a dictionary; `away = True` makes it fail."""

    def __init__(self) -> None:
        self.stream: list[Event] = []
        self.away = False
        self._events: dict[str, list[tuple[ItemId, EventType]]] = {}
        self._revisions: dict[str, str] = {}

    async def read(self, user_ids: Sequence[UserId]) -> list[UserEvents]:
        self._check()
        return [
            UserEvents(self._revisions.get(str(user), "0"), tuple(self._events.get(str(user), ())))
            for user in user_ids
        ]

    async def append(self, event: Event) -> str:
        self._check()
        self.stream.append(event)
        events = self._events.setdefault(str(event.user_id), [])
        events.append((str(event.item_id), event.event_type))
        revision = f"{len(self.stream)}-0"
        self._revisions[str(event.user_id)] = revision
        return revision

    async def ping(self) -> None:
        self._check()

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
