"""At most so many requests a minute for each name, over all replicas, without a wait.

Every replica counts for itself, and ten times a second adds what is new to the counts in Redis and
takes the sums over; a request only looks into memory. So a replica is exact for what it answered
itself and a tenth of a second late for the others. With Redis away each goes on by its own count:
the limit gets looser by the number of replicas, and no request fails for it.

The window slides: the minute before counts with the share of it that the last 60 seconds cover.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from app import logs
from app.errors import DependencyUnavailable
from app.ports import RateCounts

WINDOW_S = 60
_SYNC_S = 0.1
# Names counted at once; those beyond are let through, so that memory has a bound.
_MAX_NAMES = 100_000
_log = logs.get("limits")


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left to a name. reset_s: until all of it is back, seconds, rounded up."""

    limit: int
    remaining: int
    reset_s: int
    retry_after_s: int = 0  # 0: allowed

    @property
    def is_allowed(self) -> bool:
        """Whether the request may go on."""
        return self.retry_after_s == 0


@dataclass(slots=True)
class _Count:
    minute: int
    before: int = 0  # in the minute before this one
    shared: int = 0  # in this one, of all replicas, as last heard
    own: int = 0  # and what was not told them yet


class RateLimiter:
    """Counts of one replica."""

    def __init__(self, counts: RateCounts | None, clock: Callable[[], float] = time.time) -> None:
        """counts: shared between replicas; None: this replica counts alone. clock: epoch s."""
        self._counts = counts
        self._clock = clock
        self._of: dict[str, _Count] = {}
        self._told: set[str] = set()
        self._sync: asyncio.Task[None] | None = None
        self._away = False

    def take(self, name: str, limit: int) -> Allowance:
        """Count one request of the name unless it would be one too many."""
        minute, elapsed_s = divmod(self._clock(), WINDOW_S)
        count = self._count(name, int(minute))
        if count is None:
            return Allowance(limit, limit, 0)
        this = count.shared + count.own
        weighed = count.before * (1 - elapsed_s / WINDOW_S) + this
        if weighed + 1 > limit:
            wait_s = _wait_s(count.before, this, limit, elapsed_s)
            return Allowance(limit, 0, _reset_s(this, elapsed_s), wait_s)
        count.own += 1
        if self._counts is not None:
            self._told.add(name)
            self._start_sync()
        return Allowance(limit, int(limit - weighed - 1), _reset_s(this + 1, elapsed_s))

    def _count(self, name: str, minute: int) -> _Count | None:
        count = self._of.get(name)
        if count is None:
            if len(self._of) >= _MAX_NAMES:
                self._forget(minute)
                if len(self._of) >= _MAX_NAMES:
                    return None
            count = self._of[name] = _Count(minute)
        elif count.minute != minute:
            follows = count.minute + 1 == minute
            count.before = count.shared + count.own if follows else 0
            count.minute, count.shared, count.own = minute, 0, 0
        return count

    def _forget(self, minute: int) -> None:
        """Drop the names that the window no longer reaches."""
        self._of = {n: count for n, count in self._of.items() if count.minute >= minute - 1}

    def _start_sync(self) -> None:
        if self._sync is None or self._sync.done():
            self._sync = asyncio.get_running_loop().create_task(self._sync_soon())

    async def _sync_soon(self) -> None:
        while self._told:
            await asyncio.sleep(_SYNC_S)
            await self._sync_now()

    async def _sync_now(self) -> None:
        minute = int(self._clock() // WINDOW_S)
        names, self._told = self._told, set()
        fresh = {
            name: count.own
            for name in names
            if (count := self._of.get(name)) is not None and count.minute == minute
        }
        if not fresh or self._counts is None:
            return
        try:
            sums = await self._counts.add(minute, fresh)
        except DependencyUnavailable as error:
            self._note(away=True, reason=error.message)
            self._told |= set(fresh)
            await asyncio.sleep(1.0)
            return
        self._note(away=False)
        for (name, told), (before, this) in zip(fresh.items(), sums, strict=True):
            count = self._of.get(name)
            if count is not None and count.minute == minute:
                count.before, count.shared = max(before, count.before), this
                count.own -= told

    def _note(self, *, away: bool, reason: str = "") -> None:
        if away and not self._away:  # once, not at every try
            _log.warning("counting alone", reason=reason)
        self._away = away


def _reset_s(this: int, elapsed_s: float) -> int:
    """Whole seconds until nothing weighs any more: what this minute has does to the next's end."""
    return math.ceil((2 * WINDOW_S if this else WINDOW_S) - elapsed_s)


def _wait_s(before: int, this: int, limit: int, elapsed_s: float) -> int:
    """Whole seconds until one more request fits, at least 1."""
    if this + 1 <= limit:  # the share of the minute before must shrink
        share = (limit - 1 - this) / before
        return max(1, math.ceil(WINDOW_S * (1 - share) - elapsed_s))
    share = (limit - 1) / this
    return max(1, math.ceil(2 * WINDOW_S - elapsed_s - WINDOW_S * share))
