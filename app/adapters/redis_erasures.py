"""Erased users in Redis, beside their state.

    marquee:erasures      hash, user id -> the newest erasure as JSON, with the counts of all

A Lua script replaces the user's text by a line that says "erased" and notes the erasure, both or
neither. The line's id is taken from the event stream, so it is greater than those of all events
before it and less than those of all after it: the order decides what belongs to the erased user.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.adapters.redis_state import ERASED, features_key, unpack, user_key
from app.adapters.redis_stream import EVENTS
from app.domain import Erasure, StoredUser, UserId, event_order
from app.errors import DependencyUnavailable

ERASURES = "marquee:erasures"

_ERASE = f"""
local id = redis.call('XADD', KEYS[1], '*', 'erased', '1')
redis.call('XDEL', KEYS[1], id)
local text = redis.call('GET', KEYS[2]) or ''
local _, lines = string.gsub(text, '\\n', '')
if string.match(text, '^[%d-]+|{ERASED}|\\n') then lines = lines - 1 end
redis.call('DEL', KEYS[4])
redis.call('SET', KEYS[2], id .. '|{ERASED}|\\n')
local before = redis.call('HGET', KEYS[3], ARGV[1])
local removed = before and cjson.decode(before).removed or {{}}
removed.state = (removed.state or 0) + lines
local note = cjson.encode({{user_id = ARGV[1], event_id = id, erased_at = ARGV[2],
                           removed = removed, is_finished = false}})
redis.call('HSET', KEYS[3], ARGV[1], note)
return note
"""


class RedisErasures:
    """The Erasures port on a Redis or Valkey server."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._redis: Redis = Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        )
        self._erase = self._redis.register_script(_ERASE)

    async def begin(self, user_id: UserId) -> Erasure:
        """See the port."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with _translated():
            note = await self._erase(
                keys=[EVENTS, user_key(user_id), ERASURES, features_key(user_id)],
                args=[str(user_id), now],
            )
        return Erasure(**json.loads(note))

    async def note(self, erasure: Erasure) -> None:
        """See the port."""
        with _translated():
            await self._redis.hset(ERASURES, erasure.user_id, json.dumps(asdict(erasure)))

    async def all(self) -> dict[str, Erasure]:
        """See the port."""
        with _translated():
            notes: Any = await self._redis.hgetall(ERASURES)
        return {user.decode(): Erasure(**json.loads(note)) for user, note in notes.items()}

    async def left(self, erasure: Erasure) -> dict[str, str]:
        """What is wrong with an erased user's state: place -> what; empty when nothing is."""
        with _translated():
            keys = [user_key(erasure.user_id), features_key(erasure.user_id)]
            text, kept = cast(list[bytes | None], await self._redis.mget(keys))
        line = f"{erasure.event_id}|{ERASED}|\n".encode()
        if text is None:
            return {"state": "it no longer says that the user is erased: send the DELETE again"}
        left = {} if text.startswith(line) else {"state": "events from before"}
        if kept is not None and not _respects(unpack(kept), erasure):
            left["features"] = "made of data from before: materialize newer data"
        return left

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


def _respects(stored: StoredUser | None, erasure: Erasure) -> bool:
    """Whether all that is stored is of the new user: it came through the event log since."""
    return stored is not None and event_order(stored.position) > event_order(erasure.event_id)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise DependencyUnavailable(f"erasures: {error}") from error
