"""Turns concurrent calls into batches, without a clock.

A batch starts at once when none is running, and takes all who wait where they are few. Beside
running ones, of which there are fewer than `max_in_flight`, it starts when as many wait as its fair
share of all that are being served: else the first who comes would take a slot, and the cost of a
batch, for himself. So an idle service adds no wait, and a busy one makes big, even batches by
itself. Who would be answered later than after `max_wait_s` is refused (app/admission.py). Who asks
the same as somebody who waits or is being served shares the answer (docs/adr/0042).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from app.admission import Admission

T = TypeVar("T")
R = TypeVar("R")

# So few are not dealt out to several batches: one costs as much as ten requests in it.
_NOT_SPLIT = 16


@dataclass(slots=True)
class _Call(Generic[T, R]):
    """An item, its name, when it came, and the futures of all who wait for its result."""

    item: T
    name: Hashable | None
    came_at: float
    futures: list[asyncio.Future[R]] = field(default_factory=list)

    def answer(self, result: R) -> None:
        for future in self.futures:
            if not future.done():  # the caller may have gone away
                future.set_result(result)

    def fail(self, error: BaseException) -> None:
        for future in self.futures:
            if not future.done():
                future.set_exception(error)


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
        same: Callable[[T], Hashable] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """handle: must return one result per item; what it raises, every item's caller gets.
        went_without: by one of its results, whether a batch had to do without something. Such a
        batch may have waited for what does not answer, so its time says nothing of the next one's.
        same: names all that an item's result depends on; items of one name are handled once while
        they overlap. None: every item is handled.
        clock: seconds, as the event loop counts them."""
        self._admission = Admission(max_wait_s, max_batch, clock)
        self._handle = handle
        self._went_without = went_without
        self._same = same
        self._max_in_flight = max_in_flight
        self._waiting: list[_Call[T, R]] = []
        self._shared: dict[Hashable, _Call[T, R]] = {}  # those that wait or run, by their names
        # And its batch, and whether that was as big as it might be.
        self._running: dict[asyncio.Task[bool], tuple[list[_Call[T, R]], bool]] = {}
        self._flush_scheduled = False

    async def submit(self, item: T, came_at: float | None = None) -> R:
        """The handler's result for this item. Raises Overloaded when it would come too late.

        came_at: seconds of the clock, where it came from another queue; None: now.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._call_for(item, came_at).futures.append(future)
        return await future

    def _call_for(self, item: T, came_at: float | None) -> _Call[T, R]:
        """The one under way for the same item, or a new one."""
        name = None if self._same is None else self._same(item)
        if name is not None and (under_way := self._shared.get(name)) is not None:
            return under_way
        now = self.check()
        call: _Call[T, R] = _Call(item, name, now if came_at is None else came_at)
        if name is not None:
            self._shared[name] = call
        self._waiting.append(call)
        if not self._flush_scheduled:
            # Not at once: what else is readable in this turn of the loop joins the batch.
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)
        return call

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
            self._running[task] = (batch, len(batch) == limit)
            task.add_done_callback(self._finished)

    def _refuse_the_late(self) -> None:
        late = 0
        for call in self._waiting:
            left = len(self._waiting) - late
            if not self._admission.is_late(call.came_at, left):
                break
            late += 1
            self._forget(call)
            call.fail(self._admission.refusal(left))
        del self._waiting[:late]

    def _fair_share(self) -> int:
        """The size of each batch if all who wait or are being served were in `max_in_flight`."""
        return -(-(len(self._waiting) + self._in_graph()) // self._max_in_flight)

    def _in_graph(self) -> int:
        return sum(len(batch) for batch, _ in self._running.values())

    def _finished(self, task: asyncio.Task[bool]) -> None:
        batch, full = self._running.pop(task)
        tells = full and not task.cancelled() and task.result()
        self._admission.finished(
            len(batch), len(self._waiting), full=tells, came_at=batch[0].came_at
        )
        self._flush()

    def _forget(self, call: _Call[T, R]) -> None:
        if call.name is not None:
            del self._shared[call.name]

    async def _run(self, batch: list[_Call[T, R]]) -> bool:
        """Whether the batch took the time that batches take."""
        try:
            results = await self._handle([call.item for call in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for a batch of {len(batch)}")
        except BaseException as error:
            for call in batch:
                self._forget(call)
                call.fail(error)
            if isinstance(error, asyncio.CancelledError):
                raise
            return True
        for call, result in zip(batch, results, strict=True):
            self._forget(call)
            call.answer(result)
        return not any(map(self._went_without, results))
