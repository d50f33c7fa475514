"""What stands in where a store is not configured: each says so, and the pipeline degrades."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.domain import Event, UserEvents, UserId
from app.errors import DependencyUnavailable


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
