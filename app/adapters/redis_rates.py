"""Counts of requests in Redis, beside the cached slates: losing them forgets a minute.

rate:<minute>:<hash of the name>    integer, expires after the next minute
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.errors import DependencyUnavailable

# KEYS: this minute's, then the minute before's, of every name. ARGV: what to add.
_ADD = """
local sums = {}
for n = 1, #ARGV do
    local now = redis.call('INCRBY', KEYS[n], ARGV[n])
    redis.call('EXPIRE', KEYS[n], 130)
    sums[2 * n - 1] = tonumber(redis.call('GET', KEYS[#ARGV + n]) or 0)
    sums[2 * n] = now
end
return sums
"""


class RedisRateCounts:
    """The RateCounts port on a Redis or Valkey server."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._redis: Redis = Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        )
        self._add = self._redis.register_script(_ADD)

    async def add(self, minute: int, counts: Mapping[str, int]) -> list[tuple[int, int]]:
        """See the port."""
        names = [_hash(name) for name in counts]
        keys = [f"rate:{when}:{name}" for when in (minute, minute - 1) for name in names]
        try:
            sums = cast(list[int], await self._add(keys=keys, args=list(counts.values())))
        except (RedisError, OSError) as error:
            raise DependencyUnavailable(f"rate limit: {error}") from error
        return list(zip(sums[::2], sums[1::2], strict=True))


def _hash(name: str) -> str:
    """No one's id lies about in keys."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
