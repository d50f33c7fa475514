"""What stands in where a store is not configured: each says so, and the pipeline degrades."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.domain import Erasure, Event, UserEvents, UserId
from app.errors import DependencyUnavailable
from app.windows import SlotCounts


class NoUserState:
    """The UserState port without a server: nobody has feedback, and none is accepted."""

    async def read(self, user_ids: Sequence[UserId]) -> list[UserEvents]:
        """See the port."""
        raise DependencyUnavailable("user state: REDIS_URL is not set")

    async def append(self, event: Event) -> str:
        """See the port."""
        raise DependencyUnavailable("user state: REDIS_URL is not set")

    async def ping(self) -> None:
        """See the port."""
        raise DependencyUnavailable("user state: REDIS_URL is not set")


class NoSlateCache:
    """The SlateCache port without a server: always empty."""

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """See the port."""
        return [None] * len(keys)

    async def put(self, slates: Mapping[str, bytes]) -> None:
        """See the port."""

    async def keys(self, prefix: str) -> list[str]:
        """See the port."""
        return []

    async def drop(self, keys: Sequence[str]) -> None:
        """See the port."""


class NoErasures:
    """The Erasures port without a server."""

    async def begin(self, user_id: UserId) -> Erasure:
        """See the port."""
        raise DependencyUnavailable("user state: REDIS_URL is not set")

    async def note(self, erasure: Erasure) -> None:
        """See the port."""
        raise DependencyUnavailable("user state: REDIS_URL is not set")

    async def all(self) -> dict[str, Erasure]:
        """See the port."""
        return {}


class NoWindowCounts:
    """The WindowCounts port without a server: nothing happens."""

    async def read(self, slots: Sequence[int]) -> list[SlotCounts]:
        """See the port."""
        return [{} for _ in slots]


async def never_loaded() -> int | None:
    """When online features were loaded, without a server."""
    return None
