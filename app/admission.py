"""Who may wait: no more than can be served in time.

A service that is asked for more than it can do either answers everything late or refuses some at
once. This refuses: from the pace at which batches come out of the graph it tells how long a new
request would take, and `Overloaded` says when to ask again. The same pace bounds the batches: one
that takes long makes all behind it late. Where it was of requests that cost less, batches grow no
faster than to the double of the last ones, and those who have waited too long are refused when
their turn comes. So both the time and the memory that the queue takes are bounded.

What that estimate leaves out, such as a processor that is busy refusing others, shows in the time
since those who are served came. While it is more than half of the longest, the queue may be ever
shorter, and longer again when it is not: additive increase, multiplicative decrease (Chiu and Jain,
1989).

After a batch that hung, as when a replica died, there is no overload: the slowest of the last
batches does not count for the pace, and who waited for it is served when the queue ends soon.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from app.errors import Overloaded

_LAST_BATCHES = 8
# Of so few nobody is refused: that would spare next to nothing, and the pace may be that of a cold
# start. The first batch is no bigger.
_FEW = 8
_BATCH_SHARE = 0.2
_SHORTER, _LONGER, _SHORTEST = 0.9, 0.05, 0.2


class Admission:
    """The bound on the time from a request's arrival to its answer, for one queue."""

    def __init__(
        self, max_wait_s: float, max_batch: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """max_batch: most requests that leave the queue together. clock: seconds, monotonic."""
        self._max_wait_s = max_wait_s
        self._max_batch = max_batch
        self._clock = clock
        self._sizes: deque[int] = deque(maxlen=_LAST_BATCHES)
        self._busy: deque[tuple[float, int]] = deque(maxlen=_LAST_BATCHES)  # seconds, size
        self._s_per_item = 0.0
        self._share = 1.0  # of the longest time, for the queue
        self._busy_since: float | None = None

    def enter(self, waiting: int, running: int) -> float:
        """The time of a new request's arrival; Overloaded when those before it are too many.

        waiting, running: before it in the queue, and in the graph.
        """
        before_s = (waiting + running) * self._s_per_item
        if waiting >= _FEW and before_s > (1 - _BATCH_SHARE) * self._share * self._max_wait_s:
            raise self.refusal(waiting)
        return self._clock()

    def batch_limit(self) -> int:
        """How many may leave the queue together: what takes a share of the longest time to an
        answer, but at most twice the last ones; before the pace is known, no more than they."""
        last = max(self._sizes, default=0)
        if not self._s_per_item:
            return min(self._max_batch, max(_FEW, last))
        in_time = _BATCH_SHARE * self._share * self._max_wait_s / self._s_per_item
        return max(1, int(min(self._max_batch, max(_FEW, 2 * last), in_time)))

    def is_late(self, came_at: float, waiting: int) -> bool:
        """Whether the first of `waiting`, who came then, has waited too long to be served: half
        of the longest time to an answer, with more than the other half of work waiting."""
        half_s = self._max_wait_s / 2
        ends_soon = waiting * self._s_per_item <= self._share * half_s
        return not ends_soon and self._clock() - came_at > half_s

    def finished(self, size: int, waiting: int, *, full: bool, came_at: float) -> None:
        """A batch of `size` came out of the graph, with `waiting` in the queue at that moment.

        full: it was as big as it might be. Of others one learns nothing: had more waited, more
        would have been done in that time. They make what is known older.
        came_at: when the first of the batch came, seconds of the clock.
        """
        now = self._clock()
        is_late = now - came_at > self._max_wait_s / 2
        share = self._share * _SHORTER if is_late else self._share + _LONGER
        self._share = min(1.0, max(_SHORTEST, share))
        self._sizes.append(size)
        if not full:
            if self._busy:
                self._busy.popleft()
        elif self._busy_since is not None:  # the queue was never empty since the last one
            self._busy.append((now - self._busy_since, size))
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
        slowest = max(self._busy, default=(0.0, 0))
        requests = sum(size for _, size in self._busy) - slowest[1]
        return (sum(s for s, _ in self._busy) - slowest[0]) / requests if requests else 0.0
