"""Who may wait: no more than can be served in time.

A service that is asked for more than it can do either answers everything late or refuses some at
once. This refuses: from the pace at which batches come out of the graph it tells how long a new
request would wait, and `Overloaded` says when to ask again. The pace is known only while requests
wait, which is when it matters; until it is, and whenever it was wrong, those who have waited too
long are refused when their turn comes. So both the time and the memory that the queue takes are
bounded. Nobody is refused while all who wait fit into the next batch: to refuse them would spare
nothing, and after a batch that hung, as when a replica died, there is no overload.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from app.errors import Overloaded

_NEWEST_WEIGHT = 0.2


class Admission:
    """The bound on the wait before a batch, for one queue."""

    def __init__(
        self, max_wait_s: float, max_batch: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """max_batch: most requests that leave the queue together. clock: seconds, monotonic."""
        self._max_wait_s = max_wait_s
        self._max_batch = max_batch
        self._clock = clock
        self._s_per_item = 0.0
        self._busy_since: float | None = None

    def enter(self, waiting: int) -> float:
        """The time of a new request's arrival; Overloaded when `waiting` before it are too many."""
        wait_s = waiting * self._s_per_item
        if waiting >= self._max_batch and wait_s > self._max_wait_s:
            raise self.refusal(waiting)
        return self._clock()

    def is_late(self, entered: float, waiting: int) -> bool:
        """Whether the first of `waiting`, who entered then, has waited too long to be served."""
        return waiting > self._max_batch and self._clock() - entered > self._max_wait_s

    def finished(self, size: int, waiting: int) -> None:
        """A batch of `size` came out of the graph, with `waiting` in the queue at that moment."""
        now = self._clock()
        if self._busy_since is not None:  # the queue was never empty since the last one
            sample = (now - self._busy_since) / size
            known = self._s_per_item
            self._s_per_item = known + _NEWEST_WEIGHT * (sample - known) if known else sample
        self._busy_since = now if waiting else None

    def refusal(self, waiting: int) -> Overloaded:
        """What one is told who cannot be served in time, with `waiting` in the queue."""
        return Overloaded(
            "more requests than can be answered in time; ask again",
            retry_after_s=max(1, math.ceil(waiting * self._s_per_item)),
        )
