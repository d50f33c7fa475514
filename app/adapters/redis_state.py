"""Online user state in Redis: one list of feedback per user, one stream of all events.

    marquee:events        stream, one entry per event, for the next training
    marquee:user:<id>     list, newest first, "<stream id>|<event type>|<item id>"

A Lua script writes both, so an event is in both or in neither; the newest entry's stream id is
the user's revision. The server should run with `appendfsync always`: then an acknowledged event
also survives the server's death.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.domain import Event, EventType, UserEvents, UserId
from app.errors import DependencyUnavailable

_EVENTS = "marquee:events"

_APPEND = """
local id = redis.call('XADD', KEYS[1], '*', 'user_id', ARGV[1], 'item_id', ARGV[2],
                      'event_type', ARGV[3], 'timestamp_ms', ARGV[4])
redis.call('LPUSH', KEYS[2], id .. '|' .. ARGV[3] .. '|' .. ARGV[2])
redis.call('LTRIM', KEYS[2], 0, ARGV[5] - 1)
return id
"""


class RedisUserState:
    """The UserState port on a Redis or Valkey server."""

    def __init__(self, url: str, *, timeout_s: float, kept_events: int) -> None:
        """kept_events: feedback remembered per user; older entries leave the user's list (not
        the stream)."""
        self._redis: Redis = Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        )
        self._append = self._redis.register_script(_APPEND)
        self._kept_events = kept_events

    async def read(self, user_ids: Sequence[UserId]) -> list[UserEvents]:
        """See the port."""
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for user_id in user_ids:
                    pipe.lrange(_key(user_id), 0, -1)
                rows: list[list[bytes]] = await pipe.execute()
        except (RedisError, OSError) as error:
            raise DependencyUnavailable(f"user state: {error}") from error
        return [_parse(entries) for entries in rows]

    async def append(self, event: Event) -> str:
        """See the port."""
        arguments: list[Any] = [
            str(event.user_id),
            str(event.item_id),
            event.event_type.value,
            event.timestamp_ms,
            self._kept_events,
        ]
        try:
            revision = await self._append(keys=[_EVENTS, _key(event.user_id)], args=arguments)
        except (RedisError, OSError) as error:
            raise DependencyUnavailable(f"user state: {error}") from error
        return str(revision.decode())

    async def ping(self) -> None:
        """See the port."""
        try:
            await self._redis.ping()
        except (RedisError, OSError) as error:
            raise DependencyUnavailable(f"user state: {error}") from error


def _key(user_id: UserId) -> str:
    return f"marquee:user:{user_id}"


def _parse(entries: list[bytes]) -> UserEvents:
    if not entries:
        return UserEvents()
    fields = [entry.decode().split("|", 2) for entry in entries]
    events = tuple((item_id, EventType(kind)) for _, kind, item_id in reversed(fields))
    return UserEvents(revision=fields[0][0], events=events)
