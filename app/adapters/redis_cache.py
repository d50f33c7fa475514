"""Rendered slates in Redis. They expire by time; the key already holds all they depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.errors import DependencyUnavailable


class RedisSlateCache:
    """The SlateCache port on a Redis or Valkey server (maxmemory-policy allkeys-lru)."""

    def __init__(self, url: str, *, timeout_s: float, ttl_s: int) -> None:
        self._redis: Redis = Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        )
        self._ttl_s = ttl_s

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """See the port."""
        try:
            values = await self._redis.mget(list(keys))
        except (RedisError, OSError) as error:
            raise DependencyUnavailable(f"cache: {error}") from error
        return cast(list[bytes | None], values)  # never decoded: no decode_responses

    async def put(self, slates: Mapping[str, bytes]) -> None:
        """See the port."""
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for key, value in slates.items():
                    pipe.set(key, value, ex=self._ttl_s)
                await pipe.execute()
        except (RedisError, OSError) as error:
            raise DependencyUnavailable(f"cache: {error}") from error

    async def keys(self, prefix: str) -> list[str]:
        """See the port. `prefix` must not hold what Redis takes for a pattern."""
        try:
            found = [key async for key in self._redis.scan_iter(f"{prefix}*", count=1000)]
        except (RedisError, OSError) as error:
            raise DependencyUnavailable(f"cache: {error}") from error
        return [cast(bytes, key).decode() for key in found]

    async def drop(self, keys: Sequence[str]) -> None:
        """See the port."""
        try:
            if keys:
                await self._redis.unlink(*keys)
        except (RedisError, OSError) as error:
            raise DependencyUnavailable(f"cache: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
