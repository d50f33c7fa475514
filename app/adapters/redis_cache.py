"""Rendered slates in Redis. They expire by time; the key already holds all they depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.errors import DependencyUnavailable

# A command per slate would cost its caller ten times this script. KEYS and, after the life in
# seconds, ARGV are the slates.
_PUT = """
for n, key in ipairs(KEYS) do
    redis.call('SET', key, ARGV[n + 1], 'EX', ARGV[1])
end
"""


class RedisSlateCache:
    """The SlateCache port on a Redis or Valkey server (maxmemory-policy allkeys-lru)."""

    def __init__(self, url: str, *, timeout_s: float, ttl_s: int) -> None:
        self._redis: Redis = Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        )
        self._put = self._redis.register_script(_PUT)
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
            await self._put(keys=list(slates), args=[self._ttl_s, *slates.values()])
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
