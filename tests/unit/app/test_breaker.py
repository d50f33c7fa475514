"""When a dependency is asked, and when it is left alone."""

import asyncio

import pytest

from app.breaker import Breaker, BreakerState
from app.errors import DependencyUnavailable


class World:
    """A clock that stands still, a dependency that fails as told, and what was reported."""

    def __init__(self):
        self.now = 0.0
        self.asked = 0
        self.error = None
        self.reported = []
        self.breaker = Breaker(
            "store",
            lambda name, state: self.reported.append((name, state)),
            failures=3,
            open_s=5.0,
            clock=lambda: self.now,
        )

    async def work(self):
        self.asked += 1
        if self.error:
            raise self.error
        return "answer"

    async def call(self):
        return await self.breaker.call(self.work)

    async def fail(self, times, error=None):
        self.error = error or DependencyUnavailable("store: away")
        for _ in range(times):
            with pytest.raises(type(self.error)):
                await self.call()


@pytest.fixture
def world():
    return World()


async def test_failures_that_are_not_in_a_row_change_nothing(world):
    await world.fail(2)
    world.error = None
    assert await world.call() == "answer"
    await world.fail(2)
    assert world.breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize(
    "error", [DependencyUnavailable("away"), TimeoutError(), asyncio.CancelledError()]
)
async def test_failures_in_a_row_open_it_and_nobody_is_asked_any_more(world, error):
    await world.fail(3, error)
    assert world.breaker.state is BreakerState.OPEN
    with pytest.raises(DependencyUnavailable, match="store: not asked, it failed 3 times"):
        await world.call()
    assert world.asked == 3


async def test_one_probe_passes_after_a_while_and_its_success_closes_it(world):
    await world.fail(3)
    world.now = 5.0
    world.error = None
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow():
        entered.set()
        await leave.wait()
        return "late"

    probe = asyncio.create_task(world.breaker.call(slow))
    await entered.wait()
    assert world.breaker.state is BreakerState.HALF_OPEN
    with pytest.raises(DependencyUnavailable):
        await world.call()
    leave.set()
    assert await probe == "late"
    assert await world.call() == "answer"
    assert world.reported == [("store", s) for s in (0, 2, 1, 0)]


async def test_a_probe_that_fails_opens_it_for_as_long_again(world):
    await world.fail(3)
    world.now = 5.0
    await world.fail(1)
    assert world.breaker.state is BreakerState.OPEN
    world.now = 9.9
    await world.fail(1)
    assert world.asked == 4


async def test_a_probe_that_ends_in_another_error_is_followed_by_another_probe(world):
    await world.fail(3)
    world.now = 5.0
    await world.fail(1, ValueError("a bug"))
    assert world.breaker.state is BreakerState.OPEN
    world.now, world.error = 10.0, None
    assert await world.call() == "answer"


async def test_other_errors_are_no_failure_of_the_dependency(world):
    await world.fail(5, ValueError("a bug"))
    assert world.breaker.state is BreakerState.CLOSED
