"""Counts of the five-minute window in Redis: a hash per slot, written by UserState's script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.adapters.redis_state import window_key
from app.domain import EventType
from app.errors import DependencyUnavailable
from app.windows import SlotCounts


class RedisWindowCounts:
    """The WindowCounts port on a Redis or Valkey server."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._redis: Redis = Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        )

    async def read(self, slots: Sequence[int]) -> list[SlotCounts]:
        """See the port."""
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for slot in slots:
                    pipe.hgetall(window_key(slot))
                hashes: Any = await pipe.execute()
        except (RedisError, OSError) as error:
            raise DependencyUnavailable(f"windows: {error}") from error
        return [_counts(fields) for fields in hashes]


def _counts(fields: dict[bytes, bytes]) -> SlotCounts:
    counts: dict[tuple[str, EventType], int] = {}
    for field, count in fields.items():
        kind, _, item_id = field.decode().partition("|")
        counts[item_id, EventType(kind)] = int(count)
    return counts
