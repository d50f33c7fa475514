"""Turns concurrent calls into batches, without a clock.

A batch starts at once when none is running, and takes all who wait where they are few. Beside
running ones, of which there are fewer than `max_in_flight`, it starts when as many wait as its fair
share of all that are being served: else the first who comes would take a slot, and the cost of a
batch, for himself. So an idle service
adds no wait, and a busy one makes big, even batches by itself. Who would be answered later than
after `max_wait_s` is refused (app/admission.py).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from app.admission import Admission

T = TypeVar("T")
R = TypeVar("R")

# So few are not dealt out to several batches: one costs as much as ten requests in it.
_NOT_SPLIT = 16


class Coalescer(Generic[T, R]):
    """`submit` one item at a time; `handle` gets them by the batch, in order of arrival."""

    def __init__(
        self,
        handle: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        max_batch: int,
        max_in_flight: int,
        max_wait_s: float = math.inf,
        went_without: Callable[[R], bool] = lambda result: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """handle: must return one result per item; what it raises, every item's caller gets.
        went_without: by one of its results, whether a batch had to do without something. Such a
        batch may have waited for what does not answer, so its time says nothing of the next one's.
        clock: seconds, as the event loop counts them."""
        self._admission = Admission(max_wait_s, max_batch, clock)
        self._handle = handle
        self._went_without = went_without
        self._max_in_flight = max_in_flight
        self._waiting: list[tuple[T, asyncio.Future[R], float]] = []  # and when it came
        # And the size of its batch, and whether that was as big as it might be.
        self._running: dict[asyncio.Task[bool], tuple[int, bool]] = {}
        self._flush_scheduled = False

    async def submit(self, item: T) -> R:
        """The handler's result for this item. Raises Overloaded when it would come too late."""
        entered = self.check()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future, entered))
        if not self._flush_scheduled:
            # Not at once: what else is readable in this turn of the loop joins the batch.
            self._flush_scheduled = True
            loop.call_soon(self._flush)
        return await future

    def check(self) -> float:
        """Now, in seconds. Raises Overloaded where `submit` would."""
        return self._admission.enter(len(self._waiting), self._in_graph())

    def _flush(self) -> None:
        self._flush_scheduled = False
        if len(self._running) < self._max_in_flight:
            self._refuse_the_late()
        while self._waiting and len(self._running) < self._max_in_flight:
            limit = self._admission.batch_limit()
            fair = self._fair_share()
            size = min(fair if self._running else max(fair, _NOT_SPLIT), limit)
            if self._running and len(self._waiting) < size:
                return
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._running[task] = (len(batch), len(batch) == limit)
            task.add_done_callback(self._finished)

    def _refuse_the_late(self) -> None:
        late = 0
        for _, future, entered in self._waiting:
            left = len(self._waiting) - late
            if not self._admission.is_late(entered, left):
                break
            late += 1
            if not future.done():
                future.set_exception(self._admission.refusal(left))
        del self._waiting[:late]

    def _fair_share(self) -> int:
        """The size of each batch if all who wait or are being served were in `max_in_flight`."""
        return -(-(len(self._waiting) + self._in_graph()) // self._max_in_flight)

    def _in_graph(self) -> int:
        return sum(size for size, _ in self._running.values())

    def _finished(self, task: asyncio.Task[bool]) -> None:
        size, full = self._running.pop(task)
        tells = full and not task.cancelled() and task.result()
        self._admission.finished(size, len(self._waiting), full=tells)
        self._flush()

    async def _run(self, batch: list[tuple[T, asyncio.Future[R], float]]) -> bool:
        """Whether the batch took the time that batches take."""
        try:
            results = await self._handle([item for item, _, _ in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for a batch of {len(batch)}")
        except BaseException as error:
            for _, future, _ in batch:
                if not future.done():
                    future.set_exception(error)
            if isinstance(error, asyncio.CancelledError):
                raise
            return True
        for (_, future, _), result in zip(batch, results, strict=True):
            if not future.done():  # the caller may have gone away
                future.set_result(result)
        return not any(map(self._went_without, results))
