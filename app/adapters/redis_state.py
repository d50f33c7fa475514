"""Online user state in Redis: one text of feedback per user, one stream of all events.

    marquee:events        stream, one entry per event, for the next training
    marquee:user:<id>     text, one line per event, oldest first:
                          "<stream id>|<event type>|<item id>\\n"; of an erased user the first
                          line is "<stream id>|erased|\\n" (redis_erasures.py)
    marquee:features:<id> JSON, the offline store's word on the user (redis_features.py)
    marquee:window:<slot> hash, events per "<event type>|<item id>" in 15 s (app/windows.py)

A Lua script writes all, so an event is in each or in none; the newest line's stream id is the
user's revision. A text rather than a list, because a batch of users, with
their stored features, is then one MGET. The server should run with `appendfsync always`: then an
acknowledged event also survives the server's death.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.adapters.redis_stream import EVENTS
from app.domain import Event, EventType, StoredUser, UserEvents, UserId, event_order
from app.errors import DependencyUnavailable
from app.ports import UserRecord
from app.windows import WINDOW_S, slot_of

ERASED = "erased"
_STORED_FORMAT = 1
_KINDS = {kind.value: kind for kind in EventType}

# Every so often a user's text is cut back to the newest lines; in between it only grows.
_APPEND = """
local id = redis.call('XADD', KEYS[1], '*', 'user_id', ARGV[1], 'item_id', ARGV[2],
                      'event_type', ARGV[3], 'timestamp_ms', ARGV[4])
local length = redis.call('APPEND', KEYS[2], id .. '|' .. ARGV[3] .. '|' .. ARGV[2] .. '\\n')
if length > tonumber(ARGV[5]) then
    local text = redis.call('GET', KEYS[2])
    local cut = string.find(text, '\\n', math.floor(length / 2), true)
    local erased = string.match(text, '^[%d-]+|erased|\\n') or ''
    redis.call('SET', KEYS[2], erased .. string.sub(text, cut + 1))
end
redis.call('HINCRBY', KEYS[3], ARGV[3] .. '|' .. ARGV[2], 1)
redis.call('EXPIRE', KEYS[3], ARGV[6])
return id
"""


class RedisUserState:
    """The UserState port on a Redis or Valkey server."""

    def __init__(self, url: str, *, timeout_s: float, max_user_bytes: int) -> None:
        """max_user_bytes: when a user's text is longer, its older half goes (from the text, not
        from the stream); an event takes about 30 bytes."""
        self._redis: Redis = Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        )
        self._append = self._redis.register_script(_APPEND)
        self._max_user_bytes = max_user_bytes

    async def read(self, user_ids: Sequence[UserId]) -> list[UserRecord]:
        """See the port."""
        try:
            keys = [key(user_id) for key in (user_key, features_key) for user_id in user_ids]
            values = cast(list[bytes | None], await self._redis.mget(keys))
        except (RedisError, OSError) as error:
            raise DependencyUnavailable(f"user state: {error}") from error
        now_ms = time.time_ns() // 1_000_000
        texts, stored = values[: len(user_ids)], values[len(user_ids) :]
        return [
            _Record(text or b"", kept, now_ms) for text, kept in zip(texts, stored, strict=True)
        ]

    async def append(self, event: Event) -> str:
        """See the port."""
        arguments: list[str | int] = [
            str(event.user_id),
            str(event.item_id),
            event.event_type.value,
            event.timestamp_ms,
            self._max_user_bytes,
            2 * WINDOW_S,
        ]
        keys = [EVENTS, user_key(event.user_id), window_key(slot_of(event.timestamp_ms))]
        try:
            revision = await self._append(keys=keys, args=arguments)
        except (RedisError, OSError) as error:
            raise DependencyUnavailable(f"user state: {error}") from error
        return str(revision.decode())

    async def ping(self) -> None:
        """See the port."""
        try:
            await self._redis.ping()
        except (RedisError, OSError) as error:
            raise DependencyUnavailable(f"user state: {error}") from error


def user_key(user_id: UserId) -> str:
    """Where a user's text is."""
    return f"marquee:user:{user_id}"


def features_key(user_id: UserId) -> str:
    """Where what the offline store knows of a user is (redis_features.py)."""
    return f"marquee:features:{user_id}"


def window_key(slot: int) -> str:
    """Where a slot's counts are."""
    return f"marquee:window:{slot}"


@dataclass(frozen=True, slots=True)
class _Record:
    """The UserRecord port over a user's text and stored features, as they were `read_at_ms`."""

    text: bytes
    kept: bytes | None
    read_at_ms: int

    @property
    def revision(self) -> str:
        # Ids are printable, so a line break can only be ours.
        last = self.text.rpartition(b"\n")[0].rpartition(b"\n")[2]
        return last.partition(b"|")[0].decode() or "0"

    @property
    def as_of_s(self) -> int | None:
        return None if self.kept is None else _as_of_s(self.kept)

    def parsed(self) -> UserEvents:
        stored = None if self.kept is None else unpack(self.kept)
        if not self.text:
            return UserEvents(stored=stored)
        fields = [line.split("|", 2) for line in self.text.decode().split("\n")[:-1]]
        erased = fields[0][1] == ERASED
        if erased:
            if stored and event_order(stored.position) <= event_order(fields[0][0]):
                stored = None  # loaded from data of before, by a run that did not know yet
            del fields[0]
        events = tuple((item_id, _KINDS[kind]) for _, kind, item_id in fields)
        recent = _recent(fields, self.read_at_ms)
        event_ids = tuple(event_id for event_id, _, _ in fields) if stored else ()
        return UserEvents(self.revision, events, recent, erased, stored, event_ids)


def _as_of_s(kept: bytes) -> int | None:
    """The field of `unpack`, without the rest."""
    form, as_of_s, _ = kept.removeprefix(b"[").split(b",", 2)
    return int(as_of_s) if int(form) == _STORED_FORMAT else None


def unpack(kept: bytes) -> StoredUser | None:
    """A user as `pack` made it; None when that was another release's, which packs otherwise."""
    form, *fields = orjson.loads(kept)
    if form != _STORED_FORMAT:
        return None
    as_of_s, position, totals, item_ids = fields
    known = tuple(math.nan if value is None else value for value in totals)
    return StoredUser(as_of_s, position, known, tuple(item_ids))


def pack(stored: StoredUser) -> bytes:
    """A user as bytes."""
    fields = (_STORED_FORMAT, stored.as_of_s, stored.position, stored.totals, stored.item_ids)
    return orjson.dumps(fields)


def _recent(fields: list[list[str]], now_ms: int) -> int:
    """How many of the newest lines are of the window, by their stream ids."""
    since = now_ms - 1000 * WINDOW_S
    recent = 0
    for event_id, _, _ in reversed(fields):
        if int(event_id.partition("-")[0]) < since:
            break
        recent += 1
    return recent
