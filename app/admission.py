"""Who may wait: no more than can be served in time.

A service that is asked for more than it can do either answers everything late or refuses some at
once. This refuses: from the pace at which batches come out of the graph it tells how long a new
request would wait, and `Overloaded` says when to ask again. The pace is known only while requests
wait, which is when it matters; until it is, and whenever it was wrong, those who have waited too
long are refused when their turn comes. So both the time and the memory that the queue takes are
bounded.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from app.errors import Overloaded

_NEWEST_WEIGHT = 0.2


class Admission:
    """The bound on the wait before a batch, for one queue."""

    def __init__(self, max_wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds, monotonic."""
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._s_per_item = 0.0
        self._busy_since: float | None = None

    def enter(self, waiting: int) -> float:
        """The time of a new request's arrival; Overloaded when `waiting` before it are too many."""
        wait_s = waiting * self._s_per_item
        if wait_s > self._max_wait_s:
            raise self._refusal(wait_s)
        return self._clock()

    def is_late(self, entered: float) -> bool:
        """Whether one who entered then has waited too long to be served."""
        return self._clock() - entered > self._max_wait_s

    def refusal(self, waiting: int) -> Overloaded:
        """What one who has waited too long is told, with `waiting` behind it."""
        return self._refusal(waiting * self._s_per_item)

    def finished(self, size: int, waiting: int) -> None:
        """A batch of `size` came out of the graph, with `waiting` in the queue at that moment."""
        now = self._clock()
        if self._busy_since is not None:  # the queue was never empty since the last one
            sample = (now - self._busy_since) / size
            known = self._s_per_item
            self._s_per_item = known + _NEWEST_WEIGHT * (sample - known) if known else sample
        self._busy_since = now if waiting else None

    @staticmethod
    def _refusal(wait_s: float) -> Overloaded:
        return Overloaded(
            "more requests than can be answered in time; ask again",
            retry_after_s=max(1, math.ceil(wait_s)),
        )
