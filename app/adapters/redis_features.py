"""The online feature store in Redis: a user of the offline store per key, read with the state.

marquee:features:<id>      one user (redis_state.pack)
marquee:features           when it was loaded, unix seconds, and of which data
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.adapters.redis_state import features_key, pack
from app.domain import StoredUser, UserId
from app.errors import DependencyUnavailable

_LOADED = "marquee:features"
_USERS_AT_ONCE = 1_000


class RedisFeatures:
    """Writes the online store, and tells how old it is."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._redis: Redis = Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        )

    async def write(self, users: Iterable[tuple[UserId, StoredUser]]) -> int:
        """Replace what is stored of the users; returns how many."""
        written = 0
        try:
            rest = iter(users)
            while some := list(islice(rest, _USERS_AT_ONCE)):
                await self._redis.mset({features_key(user): pack(kept) for user, kept in some})
                written += len(some)
            await self._redis.set(_LOADED, int(time.time()))
        except (RedisError, OSError) as error:
            raise DependencyUnavailable(f"features: {error}") from error
        return written

    async def loaded_at(self) -> int | None:
        """When the store was loaded last, unix seconds; None when it never was."""
        try:
            found: Any = await self._redis.get(_LOADED)
        except (RedisError, OSError) as error:
            raise DependencyUnavailable(f"features: {error}") from error
        return None if found is None else int(found)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
