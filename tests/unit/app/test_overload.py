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


def simulate(request_s, per_s, hang_s=0.0):
    """Requests that come at random for ten seconds; in the middle the graph hangs that long."""
    clock = Instant()
    loop = asyncio.SelectorEventLoop(clock)
    loop.time = lambda: clock.now
    try:
        return loop.run_until_complete(_ask(clock, request_s, per_s, hang_s))
    finally:
        loop.close()


async def _ask(clock, request_s, per_s, hang_s):
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

    queue = Coalescer(graph, max_batch=64, max_in_flight=2, max_wait_s=0.5, clock=lambda: clock.now)
    seen = Seen()

    async def ask():
        at = clock.now
        try:
            await queue.submit(0)
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


@pytest.mark.parametrize("hang_s", [0.0, 1.0])
def test_at_half_the_capacity_nobody_is_refused_even_when_a_batch_hangs(hang_s):
    assert not simulate(0.004, per_s=50, hang_s=hang_s).refused_at
