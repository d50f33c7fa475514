"""Stops asking a dependency that does not answer, and finds out when it does again.

closed: calls pass; `failures` in a row open it. open: calls fail at once, for `open_s`. Then
half-open: one call passes as a probe, the others still fail; its success closes the breaker, its
failure opens it again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import TypeVar

from app.errors import DependencyUnavailable

T = TypeVar("T")

# Cancelled: whoever waits gave up on a dependency that is too slow.
_AWAY = (DependencyUnavailable, TimeoutError, asyncio.CancelledError)


class BreakerState(IntEnum):
    """The value of the metric marquee_breaker_state."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """One dependency's breaker."""

    def __init__(
        self,
        name: str,
        report: Callable[[str, int], None],
        *,
        failures: int,
        open_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """report: is told the name and each new state, the first one included."""
        self._name = name
        self._report = report
        self._failures = failures
        self._open_s = open_s
        self._clock = clock
        self._failed = 0
        self._opened_at = 0.0
        self.state = BreakerState.CLOSED
        report(name, self.state)

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work()`; DependencyUnavailable without asking while open."""
        if not self._admits():
            raise DependencyUnavailable(f"{self._name}: not asked, it failed {self._failed} times")
        try:
            result = await work()
        except BaseException as error:
            # A probe that ended in any other way must not leave the breaker half-open for ever.
            if self.state is BreakerState.HALF_OPEN or isinstance(error, _AWAY):
                self._note_failure()
            raise
        self._failed = 0
        self._become(BreakerState.CLOSED)
        return result

    def _admits(self) -> bool:
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.OPEN and self._clock() - self._opened_at >= self._open_s:
            self._become(BreakerState.HALF_OPEN)
            return True
        return False

    def _note_failure(self) -> None:
        self._failed += 1
        if self.state is BreakerState.HALF_OPEN or self._failed >= self._failures:
            self._opened_at = self._clock()
            self._become(BreakerState.OPEN)

    def _become(self, state: BreakerState) -> None:
        if state is not self.state:
            self.state = state
            self._report(self._name, state)
