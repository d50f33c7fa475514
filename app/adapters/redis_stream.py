"""The event stream in Redis: what UserState's script adds to, read from behind the service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.domain import Event, EventType, StreamEntry, UserId, event_order
from app.errors import DependencyUnavailable

EVENTS = "marquee:events"
# Small, so that reading page after page leaves room for requests between.
_PAGE_ENTRIES = 500


class RedisEventStream:
    """The EventStream port on a Redis or Valkey server."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._redis: Redis = Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        )

    async def read(self, after: str, limit: int) -> list[StreamEntry]:
        """See the port."""
        with _translated():
            rows: Any = await self._redis.xrange(EVENTS, min=f"({after}", count=limit)
        return [_entry(*row) for row in rows]

    async def append(self, entries: Sequence[StreamEntry]) -> None:
        """See the port. One writer at a time: the newest id is looked up before the writing."""
        with _translated():
            newest: Any = await self._redis.xrevrange(EVENTS, count=1)
            last = event_order(newest[0][0].decode()) if newest else (0, 0)
            async with self._redis.pipeline(transaction=False) as pipe:
                for entry in entries:
                    if event_order(entry.event_id) > last:
                        pipe.xadd(EVENTS, _fields(entry.event), id=entry.event_id)
                await pipe.execute()

    async def trim(self, before: str) -> int:
        """Drop the entries with ids before `before`; returns how many."""
        with _translated():
            return int(await self._redis.xtrim(EVENTS, minid=before, approximate=False))

    async def find(self, user_id: UserId, upto: str) -> list[str]:
        """The ids up to `upto` of the user's entries. Reads the whole stream."""
        found: list[str] = []
        after = "0-0"
        while True:
            with _translated():
                rows: Any = await self._redis.xrange(
                    EVENTS, min=f"({after}", max=upto, count=_PAGE_ENTRIES
                )
            if not rows:
                return found
            wanted = str(user_id).encode()
            found += [row_id.decode() for row_id, row in rows if row[b"user_id"] == wanted]
            after = rows[-1][0].decode()

    async def remove(self, event_ids: Sequence[str]) -> None:
        """Drop the entries with these ids."""
        with _translated():
            if event_ids:
                await self._redis.xdel(EVENTS, *event_ids)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise DependencyUnavailable(f"event stream: {error}") from error


def _fields(event: Event) -> dict[Any, Any]:
    return {
        "user_id": str(event.user_id),
        "item_id": str(event.item_id),
        "event_type": event.event_type.value,
        "timestamp_ms": event.timestamp_ms,
    }


def _entry(event_id: bytes, fields: dict[bytes, bytes]) -> StreamEntry:
    event = Event(
        user_id=fields[b"user_id"].decode(),
        item_id=fields[b"item_id"].decode(),
        event_type=EventType(fields[b"event_type"].decode()),
        timestamp_ms=int(fields[b"timestamp_ms"]),
    )
    return StreamEntry(event_id.decode(), event)
