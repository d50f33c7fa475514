"""The ports of what may be away, behind breakers: Redis' two roles and the index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.breaker import Breaker
from app.domain import Candidates, Event, Float32s, SearchFilter, UserId
from app.ports import Retriever, SlateCache, UserRecord, UserState


class GuardedUserState:
    """The UserState port behind a breaker; `ping` passes it by and tells how things are."""

    def __init__(self, state: UserState, breaker: Breaker) -> None:
        self._state = state
        self._breaker = breaker
        self.ping = state.ping

    async def read(self, user_ids: Sequence[UserId]) -> Sequence[UserRecord]:
        """See the port."""
        return await self._breaker.call(lambda: self._state.read(user_ids))

    async def append(self, event: Event) -> str:
        """See the port."""
        return await self._breaker.call(lambda: self._state.append(event))


class GuardedSlateCache:
    """The SlateCache port behind a breaker. Erasing passes it by: it must not be skipped."""

    def __init__(self, cache: SlateCache, breaker: Breaker) -> None:
        self._cache = cache
        self._breaker = breaker
        self.keys = cache.keys
        self.drop = cache.drop

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """See the port."""
        return await self._breaker.call(lambda: self._cache.get(keys))

    async def put(self, slates: Mapping[str, bytes]) -> None:
        """See the port."""
        await self._breaker.call(lambda: self._cache.put(slates))


class GuardedRetriever:
    """The Retriever port behind a breaker: the way to the stage, and Qdrant behind it."""

    def __init__(self, retriever: Retriever, breaker: Breaker) -> None:
        self._retriever = retriever
        self._breaker = breaker

    async def retrieve(
        self,
        version: str,
        vectors: Float32s,
        filters: Sequence[SearchFilter],
        limits: Sequence[int],
    ) -> Candidates:
        """See the port."""
        return await self._breaker.call(
            lambda: self._retriever.retrieve(version, vectors, filters, limits)
        )
