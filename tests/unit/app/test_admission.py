"""Nobody waits longer than is allowed: who would is refused at the door or when the turn comes."""

import asyncio

import pytest

from app.admission import Admission
from app.coalesce import Coalescer
from app.errors import Overloaded


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def a_busy_queue(clock):
    """A queue from which ten requests a second come out."""
    admission = Admission(1.0, 8, clock)
    admission.finished(5, waiting=3)
    clock.now += 0.5
    admission.finished(5, waiting=3)
    return admission


def test_a_request_enters_while_those_before_it_can_be_served_in_time():
    clock = Clock()
    admission = a_busy_queue(clock)
    assert admission.enter(waiting=9) == clock.now
    with pytest.raises(Overloaded) as refused:
        admission.enter(waiting=25)
    assert (refused.value.status, refused.value.retry_after_s) == (429, 3)


def test_an_idle_time_does_not_count_as_a_slow_batch():
    clock = Clock()
    admission = a_busy_queue(clock)
    admission.finished(5, waiting=0)
    clock.now += 3600
    admission.finished(1, waiting=0)
    admission.enter(waiting=9)


def test_the_pace_follows_a_service_that_becomes_faster():
    clock = Clock()
    admission = a_busy_queue(clock)
    for _ in range(30):
        clock.now += 0.05
        admission.finished(5, waiting=3)
    admission.enter(waiting=80)


async def test_who_waited_too_long_is_refused_when_the_batch_before_ends():
    go = asyncio.Event()

    async def handle(items):
        await go.wait()
        return items

    coalescer = Coalescer(handle, max_batch=1, max_in_flight=1, max_wait_s=0.01)
    served = asyncio.create_task(coalescer.submit(1))
    await asyncio.sleep(0)
    late, last = (asyncio.create_task(coalescer.submit(n)) for n in (2, 3))
    await asyncio.sleep(0.05)
    go.set()
    assert await served == 1
    with pytest.raises(Overloaded):
        await late
    assert await last == 3  # the next batch has room for it


async def test_nobody_is_refused_after_a_batch_that_hung_when_all_fit_into_the_next():
    go = asyncio.Event()

    async def handle(items):
        await go.wait()
        return items

    coalescer = Coalescer(handle, max_batch=10, max_in_flight=1, max_wait_s=0.01)
    calls = [asyncio.create_task(coalescer.submit(0))]
    await asyncio.sleep(0)
    calls += [asyncio.create_task(coalescer.submit(n)) for n in range(1, 11)]
    await asyncio.sleep(0.05)
    go.set()
    assert await asyncio.gather(*calls) == list(range(11))
