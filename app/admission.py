"""Who may wait: no more than can be served in time.

A service that is asked for more than it can do either answers everything late or refuses some at
once. This refuses: from the pace at which batches come out of the graph it tells how long a new
request would take, and `Overloaded` says when to ask again. The same pace bounds the batches: one
that takes long makes all behind it late. The pace is known only while requests wait, which is when
it matters; until it is, and whenever it was wrong, those who have waited too long are refused when
their turn comes. So both the time and the memory that the queue takes are bounded.

Nobody is refused while all who wait fit into the next batch: to refuse them would spare nothing,
and after a batch that hung, as when a replica died, there is no overload. For the same reason the
slowest of the last batches does not count for the pace.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from app.errors import Overloaded

_PACE_BATCHES = 8
_BATCH_SHARE = 0.2


class Admission:
    """The bound on the time from a request's arrival to its answer, for one queue."""

    def __init__(
        self, max_wait_s: float, max_batch: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """max_batch: most requests that leave the queue together. clock: seconds, monotonic."""
        self._max_wait_s = max_wait_s
        self._max_batch = max_batch
        self._clock = clock
        self._batches: deque[tuple[float, int]] = deque(maxlen=_PACE_BATCHES)  # seconds, size
        self._s_per_item = 0.0
        self._busy_since: float | None = None

    def enter(self, waiting: int, running: int) -> float:
        """The time of a new request's arrival; Overloaded when those before it are too many.

        waiting, running: before it in the queue, and in the graph.
        """
        if waiting >= self.batch_limit():
            wait_s = (waiting + running) * self._s_per_item
            if wait_s > self._max_wait_s:
                raise self.refusal(waiting)
        return self._clock()

    def batch_limit(self) -> int:
        """How many may leave the queue together: a share of the time that an answer may take."""
        if not self._s_per_item:
            return self._max_batch
        in_time = _BATCH_SHARE * self._max_wait_s / self._s_per_item
        return max(1, int(min(in_time, self._max_batch)))

    def is_late(self, entered: float, waiting: int) -> bool:
        """Whether the first of `waiting`, who entered then, has waited too long to be served."""
        return waiting > self._max_batch and self._clock() - entered > self._max_wait_s

    def finished(self, size: int, waiting: int) -> None:
        """A batch of `size` came out of the graph, with `waiting` in the queue at that moment."""
        now = self._clock()
        if self._busy_since is not None:  # the queue was never empty since the last one
            self._batches.append((now - self._busy_since, size))
            self._s_per_item = self._pace()
        self._busy_since = now if waiting else None

    def refusal(self, waiting: int) -> Overloaded:
        """What one is told who cannot be served in time, with `waiting` in the queue."""
        return Overloaded(
            "more requests than can be answered in time; ask again",
            retry_after_s=max(1, math.ceil(waiting * self._s_per_item)),
        )

    def _pace(self) -> float:
        """Seconds per request, of the last batches but the slowest; 0 before the second."""
        slowest = max(self._batches)
        requests = sum(size for _, size in self._batches) - slowest[1]
        return (sum(s for s, _ in self._batches) - slowest[0]) / requests if requests else 0.0
