"""Nobody waits longer than is allowed: who would is refused at the door or when the turn comes."""

import asyncio
import contextlib

import pytest

from app.admission import Admission
from app.coalesce import Coalescer
from app.errors import Overloaded


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def a_busy_queue(clock):
    """A queue from which twenty requests a second come out."""
    admission = Admission(1.0, 8, clock)
    admission.finished(5, waiting=3, full=True, came_at=clock.now)
    for _ in range(3):
        clock.now += 0.25
        admission.finished(5, waiting=3, full=True, came_at=clock.now)
    return admission


def test_a_request_enters_while_those_before_it_can_be_served_in_time():
    clock = Clock()
    admission = a_busy_queue(clock)
    for _ in range(8):
        clock.now += 0.1
        admission.finished(5, waiting=3, full=True, came_at=clock.now)  # now it is fifty a second
    assert admission.enter(waiting=29, running=10) == clock.now
    with pytest.raises(Overloaded) as refused:
        admission.enter(waiting=30, running=12)
    assert (refused.value.status, refused.value.retry_after_s) == (429, 1)
    with pytest.raises(Overloaded) as refused:
        admission.enter(waiting=125, running=0)
    assert refused.value.retry_after_s == 3


def test_of_a_few_nobody_is_refused():
    clock = Clock()
    admission = a_busy_queue(clock)
    clock.now += 60
    admission.finished(1, waiting=3, full=True, came_at=clock.now)
    clock.now += 60
    admission.finished(1, waiting=3, full=True, came_at=clock.now)
    admission.enter(waiting=7, running=2)
    with pytest.raises(Overloaded):
        admission.enter(waiting=8, running=2)


def test_batches_take_a_fifth_of_the_time_and_at_most_double():
    clock = Clock()
    admission = Admission(1.0, 64, clock)
    limits = []
    for _ in range(6):
        limits.append(admission.batch_limit())
        clock.now += 0.001
        admission.finished(limits[-1], waiting=100, full=True, came_at=clock.now)
    assert limits == [8, 8, 8, 16, 32, 64]  # the pace is known from the third on
    assert (admission := a_busy_queue(clock)).batch_limit() == 4
    for _ in range(8):
        clock.now += 9.0
        admission.finished(1, waiting=3, full=True, came_at=clock.now)
    assert admission.batch_limit() == 1


def test_an_idle_time_does_not_count_as_a_slow_batch():
    clock = Clock()
    admission = a_busy_queue(clock)
    admission.finished(5, waiting=0, full=True, came_at=clock.now)
    clock.now += 3600
    admission.finished(1, waiting=0, full=True, came_at=clock.now)
    admission.enter(waiting=15, running=0)


def test_one_batch_that_hung_does_not_count_for_the_pace():
    clock = Clock()
    admission = a_busy_queue(clock)
    clock.now += 60
    admission.finished(5, waiting=3, full=True, came_at=clock.now)
    admission.enter(waiting=15, running=0)


def test_the_pace_follows_a_service_that_becomes_faster():
    clock = Clock()
    admission = a_busy_queue(clock)
    for _ in range(9):
        clock.now += 0.05
        admission.finished(5, waiting=3, full=True, came_at=clock.now)
    admission.enter(waiting=70, running=0)


def test_batches_that_might_have_been_bigger_tell_nothing_of_the_pace():
    clock = Clock()
    admission = Admission(1.0, 8, clock)
    for _ in range(8):
        clock.now += 0.5  # the machine stands still again and again
        admission.finished(1, waiting=7, full=False, came_at=clock.now)
    admission.enter(waiting=50, running=2)
    admission = a_busy_queue(clock)
    for _ in range(3):
        admission.finished(1, waiting=0, full=False, came_at=clock.now)
    admission.enter(waiting=50, running=2)


def test_the_queue_is_ever_shorter_while_the_served_come_late_and_then_grows_again():
    clock = Clock()
    admission = a_busy_queue(clock)

    def room():
        """How many may wait."""
        waiting = 8
        with contextlib.suppress(Overloaded):
            while True:
                admission.enter(waiting, running=0)
                waiting += 1
        return waiting

    assert room() == 17
    rooms = []
    for late_s in (0.6,) * 8 + (0.4,) * 24:
        clock.now += 0.25
        admission.finished(5, waiting=3, full=True, came_at=clock.now - late_s)
        rooms.append(room())
    shrinking, growing = rooms[:8], rooms[8:]
    assert shrinking == sorted(shrinking, reverse=True)
    assert shrinking[-1] == 8
    assert growing == sorted(growing)
    assert growing[-1] == 17


async def test_who_waited_too_long_is_refused_when_his_turn_comes():
    clock = Clock()
    admission = Admission(1.0, 4, clock)
    entered = admission.enter(waiting=40, running=0)  # nothing is known of the pace
    assert not admission.is_late(entered, waiting=40)
    for _ in range(3):
        clock.now += 0.5
        admission.finished(4, waiting=40, full=True, came_at=clock.now)
    assert admission.is_late(entered, waiting=30)
    assert not admission.is_late(clock.now, waiting=30)
    assert not admission.is_late(entered, waiting=4)  # it ends soon


async def test_the_late_get_a_refusal_and_the_others_their_answers(monkeypatch):
    monkeypatch.setattr(Admission, "is_late", lambda self, entered, waiting: waiting > 2)
    go = asyncio.Event()

    async def handle(items):
        await go.wait()
        return items

    coalescer = Coalescer(handle, max_batch=1, max_in_flight=1)
    calls = [asyncio.create_task(coalescer.submit(n)) for n in range(4)]
    await asyncio.sleep(0)
    go.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [Overloaded, Overloaded, int, int]


async def test_nobody_is_refused_after_a_batch_that_hung_when_the_queue_ends_soon():
    clock = Clock()
    admission = Admission(1.0, 64, clock)
    for _ in range(8):
        admission.finished(2, waiting=1, full=True, came_at=clock.now)
        clock.now += 0.01
    entered = admission.enter(waiting=0, running=2)
    clock.now += 5.0
    admission.finished(2, waiting=50, full=True, came_at=clock.now)
    assert not admission.is_late(entered, waiting=50)
    admission.enter(waiting=50, running=2)
