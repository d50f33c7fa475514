"""Pages of one slate: the first page keeps the whole slate aside, the others read on in it.

What happens in between, feedback or a promotion, changes the next slate, not this one; so its
pages have neither duplicates nor gaps. The slate lives in the slate cache and goes with it.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import time
import zlib
from dataclasses import dataclass, replace
from typing import Any

import orjson

from app.cache_keys import user_prefix
from app.domain import Slate, Strategy, UserId
from app.errors import CursorExpired, CursorUnknown, DependencyUnavailable
from app.ports import SlateCache

# A later release that reads other cursors counts on from here.
_FORMAT = "1"
_TOKEN = re.compile(r"1\.([0-9a-f]{24}\.[0-9]{1,15}\.[0-9a-f]{32})\.([0-9]{1,5})\.([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class SlatePage:
    """A part of a slate; `next_cursor` is None on the last."""

    slate: Slate
    next_cursor: str | None


class Pages:
    """Slates that are read in parts."""

    def __init__(self, cache: SlateCache) -> None:
        self._cache = cache

    async def first(self, user_id: UserId, slate: Slate, size: int) -> SlatePage:
        """The first `size` items, and the rest kept for later.

        Without the cache there is no later: `next_cursor` is None and "cache" is degraded.
        """
        rows: list[Any] = orjson.loads(slate.recommendations)
        page = replace(slate, recommendations=orjson.dumps(rows[:size]))
        if len(rows) <= size:
            return SlatePage(page, None)
        name = f"{_owner(user_id)}.{time.time_ns() // 1_000_000}.{secrets.token_hex(16)}"
        kept = {
            "strategy": slate.strategy,
            "model_version": slate.model_version,
            "degraded": slate.degraded,
            "rows": rows,
        }
        try:
            await self._cache.put({_key(name): zlib.compress(orjson.dumps(kept), 1)})
        except DependencyUnavailable:
            return SlatePage(replace(page, degraded=(*page.degraded, "cache")), None)
        return SlatePage(page, _cursor(name, size, size))

    async def next(self, user_id: UserId, cursor: str, size: int | None = None) -> SlatePage:
        """The page that a cursor stands for; the same each time. size: None for the first's.

        Raises CursorUnknown for a cursor that is none or is another user's, CursorExpired for a
        slate that is no longer kept, DependencyUnavailable when the cache is away.
        """
        name, start, first_size = _parse(cursor)
        size = size or first_size
        if not name.startswith(_owner(user_id)):
            raise CursorUnknown("cursor: it belongs to another user", field="cursor")
        (packed,) = await self._cache.get([_key(name)])
        if packed is None:
            raise CursorExpired(
                "cursor: its slate is no longer kept; ask for the first page again", field="cursor"
            )
        kept = orjson.loads(zlib.decompress(packed))
        stop = start + size
        slate = Slate(
            orjson.dumps(kept["rows"][start:stop]),
            Strategy(kept["strategy"]),
            kept["model_version"],
            tuple(kept["degraded"]),
        )
        return SlatePage(slate, _cursor(name, stop, size) if stop < len(kept["rows"]) else None)


def _owner(user_id: UserId) -> str:
    return user_prefix(user_id).split(":")[1]


def _key(name: str) -> str:
    """Like a slate's: its user, and in the place of the revision when it was made."""
    owner, made_ms, secret = name.split(".")
    return f"user:{owner}:page:{made_ms}-0:{secret}"


def _cursor(name: str, start: int, size: int) -> str:
    return (
        base64.urlsafe_b64encode(f"{_FORMAT}.{name}.{start}.{size}".encode()).decode().rstrip("=")
    )


def _parse(cursor: str) -> tuple[str, int, int]:
    """Name of the slate, first place and size of the page."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        text = ""
    found = _TOKEN.fullmatch(text)
    if found is None or _cursor(found[1], int(found[2]), int(found[3])) != cursor:
        raise CursorUnknown("cursor: not one that this service gave", field="cursor")
    return found[1], int(found[2]), int(found[3])
