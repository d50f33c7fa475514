"""Ten times as much as can be done: the served are in time, below capacity nobody is refused.

The graph is a model of it: two batches at once share one processor, a batch has a cost of its own
beside that of its requests. Time is virtual, so the figures are the same on every machine.
"""

import asyncio
import random
import selectors
from dataclasses import dataclass, field

import pytest

from app.coalesce import Coalescer
from app.errors import Overloaded
from bench.load import percentile

BATCH_S, HOP_S = 0.005, 0.002
DURATION_S = 10.0


class Instant(selectors.SelectSelector):
    """Waiting takes no time: the loop's clock jumps to the end of it."""

    now = 0.0

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


@dataclass
class Seen:
    """Latencies of the served, and when others were refused, seconds."""

    served_s: list[float] = field(default_factory=list)
    refused_at: list[float] = field(default_factory=list)


def simulate(request_s, per_s, hang_s=0.0, before_s=0.0):
    """Requests that come at random for ten seconds; in the middle the graph hangs that long.

    before_s: what each waits elsewhere, which nothing in the graph tells.
    """
    return _run(lambda clock: _graph(clock, request_s, hang_s), per_s, before_s)


def simulate_outage(per_s):
    """Look-ups of a store that stands still from the second second on, for six: they wait a quarter
    of a second for it, three times and then once a second, and go on without it."""

    def store(clock):
        failures, asked_at = 0, -1.0

        async def look_up(requests):
            nonlocal failures, asked_at
            away = 2 < clock.now < 8
            if away and (failures < 3 or clock.now > asked_at + 1):
                await asyncio.sleep(0.25)
                failures, asked_at = failures + 1, clock.now
            await asyncio.sleep(0.0005)
            return [away for _ in requests]

        return Coalescer(
            look_up,
            max_batch=64,
            max_in_flight=1,
            max_wait_s=0.5,
            went_without=bool,
            clock=lambda: clock.now,
        )

    return _run(store, per_s)


def _run(make_queue, per_s, before_s=0.0):
    clock = Instant()
    loop = asyncio.SelectorEventLoop(clock)
    loop.time = lambda: clock.now
    try:
        return loop.run_until_complete(_ask(clock, make_queue(clock), per_s, before_s))
    finally:
        loop.close()


def _graph(clock, request_s, hang_s):
    processor = asyncio.Lock()
    chance = random.Random(0)
    hang = (DURATION_S / 2, DURATION_S / 2 + hang_s)

    async def graph(requests):
        await asyncio.sleep(HOP_S)
        for _ in range(4):  # the batches take turns
            async with processor:
                work_s = (BATCH_S + request_s * len(requests)) / 4
                await asyncio.sleep(work_s * chance.uniform(0.7, 1.3))
        if hang[0] < clock.now < hang[1]:
            await asyncio.sleep(hang[1] - clock.now)
        return requests

    return Coalescer(graph, max_batch=64, max_in_flight=2, max_wait_s=0.5, clock=lambda: clock.now)


async def _ask(clock, queue, per_s, before_s):
    chance = random.Random(0)
    seen = Seen()

    async def ask():
        at = clock.now
        try:
            await asyncio.sleep(before_s)
            await queue.submit(0, at)
            seen.served_s.append(clock.now - at)
        except Overloaded:
            seen.refused_at.append(at)

    asked = []
    while clock.now < DURATION_S:
        await asyncio.sleep(chance.expovariate(per_s))
        asked.append(asyncio.create_task(ask()))
    await asyncio.gather(*asked)
    seen.served_s.sort()
    return seen


@pytest.mark.parametrize("request_s", [0.006, 0.024])
def test_at_ten_times_the_capacity_the_served_are_in_time_and_hardly_fewer(request_s):
    seen = simulate(request_s, per_s=10 / request_s)
    assert percentile(seen.served_s, 0.99) < 1.0
    assert len(seen.served_s) > 0.8 * DURATION_S / request_s
    assert seen.refused_at


def test_what_the_served_wait_elsewhere_makes_the_queue_shorter():
    seen = simulate(0.006, per_s=10 / 0.006, before_s=0.4)
    assert percentile(seen.served_s, 0.5) < 0.4 + 0.2
    assert percentile(seen.served_s, 0.99) < 1.0
    assert len(seen.served_s) > 0.7 * DURATION_S / 0.006


@pytest.mark.parametrize("hang_s", [0.0, 1.0])
def test_at_half_the_capacity_nobody_is_refused_even_when_a_batch_hangs(hang_s):
    assert not simulate(0.004, per_s=50, hang_s=hang_s).refused_at


def test_nobody_is_refused_for_a_store_that_does_not_answer():
    seen = simulate_outage(per_s=100)
    assert not seen.refused_at
    assert seen.served_s[-1] < 1.0
