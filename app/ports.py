"""What the pipeline needs of the world. Adapters and Serve handles implement these.

Every method may raise `app.errors.DependencyUnavailable`; nothing else of a vendor gets through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from app.domain import (
    Candidates,
    Erasure,
    Event,
    Float32s,
    Histories,
    SearchFilter,
    StreamEntry,
    UserEvents,
    UserId,
)
from app.windows import SlotCounts


class UserRecord(Protocol):
    """A user as the store has them. Whoever is in the cache needs no more than what a cached slate
    depends on, and a busy user has hundreds of events, so those are parsed on demand."""

    @property
    def revision(self) -> str:
        """Of UserEvents."""
        ...

    @property
    def as_of_s(self) -> int | None:
        """Of UserEvents."""
        ...

    def parsed(self) -> UserEvents:
        """All of it."""
        ...


class UserState(Protocol):
    """Feedback of users, written before it is acknowledged, read on every request."""

    async def read(self, user_ids: Sequence[UserId]) -> Sequence[UserRecord]:
        """The users' newest events, in one round trip for the batch."""
        ...

    async def append(self, event: Event) -> str:
        """Add to the user's history and to the event stream, both or neither.

        Returns the user's new revision.
        """
        ...

    async def ping(self) -> None:
        """Return if the store answers."""
        ...


class Erasures(Protocol):
    """The list of erased users, kept with the user state."""

    async def begin(self, user_id: UserId) -> Erasure:
        """Forget the user's state and note the erasure, both or neither.

        From then on `UserState.read` says that the user is erased. `removed` goes on from the
        note that is there of an earlier erasure.
        """
        ...

    async def note(self, erasure: Erasure) -> None:
        """Replace the note on the user by this one, which says more."""
        ...

    async def all(self) -> dict[str, Erasure]:
        """The newest erasure of every user who has one."""
        ...


class WindowCounts(Protocol):
    """Events of all users by item, in slots of time (app/windows.py)."""

    async def read(self, slots: Sequence[int]) -> list[SlotCounts]:
        """The counts of each slot, in one round trip."""
        ...


class EventStream(Protocol):
    """All acknowledged events in the order of their ids, for those who work behind the service."""

    async def read(self, after: str, limit: int) -> list[StreamEntry]:
        """At most `limit` entries with ids after `after` ("0-0": from the first), oldest first."""
        ...

    async def append(self, entries: Sequence[StreamEntry]) -> None:
        """Add entries in ascending order of id, keeping their ids.

        Entries that are not newer than the newest one here are passed over, so that a copy which
        was cut short can be made again from where it began.
        """
        ...


class SlateCache(Protocol):
    """Rendered slates by key. Losing it costs time, never correctness."""

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of the keys, None where there is none."""
        ...

    async def put(self, slates: Mapping[str, bytes]) -> None:
        """Store the values; they expire on their own."""
        ...

    async def keys(self, prefix: str) -> list[str]:
        """The keys that begin with the prefix. Looks at every key of the cache."""
        ...

    async def drop(self, keys: Sequence[str]) -> None:
        """Forget the values of the keys."""
        ...


class VectorIndex(Protocol):
    """Nearest items by dot product, under filters, in one bundle version's index."""

    async def prepare(self) -> None:
        """Return when searches can be answered, or when the index is away: then they say so."""
        ...

    async def search(
        self, vectors: Float32s, filters: Sequence[SearchFilter], limits: Sequence[int]
    ) -> Candidates:
        """vectors float32[B,D] -> at most limits[b] items for row b, best first."""
        ...


class Embedder(Protocol):
    """The user tower."""

    async def embed(self, version: str, histories: Histories) -> Float32s:
        """User vectors float32[B,D]."""
        ...


class Retriever(Protocol):
    """Candidates from the index of a version."""

    async def retrieve(
        self,
        version: str,
        vectors: Float32s,
        filters: Sequence[SearchFilter],
        limits: Sequence[int],
    ) -> Candidates:
        """At most limits[b] items for row b, best first."""
        ...


class Ranker(Protocol):
    """The second stage."""

    async def rank(self, version: str, histories: Histories, candidates: Candidates) -> Float32s:
        """Scores float32[B,D] of the first D <= K candidates of each row; -inf for padding.

        The others keep their order behind them.
        """
        ...


class Writer(Protocol):
    """A language model."""

    async def write(self, instruction: str, facts: str) -> str:
        """What it answers to the facts. Raises DependencyUnavailable."""
        ...


class RateCounts(Protocol):
    """Requests by name and minute, summed over all replicas."""

    async def add(self, minute: int, counts: Mapping[str, int]) -> list[tuple[int, int]]:
        """Add to the counts of the minute (since the epoch), in one round trip.

        Returns, in order, the sums of the minute before and of this one.
        """
        ...
