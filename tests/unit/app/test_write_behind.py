"""Slates are written after they are answered: nobody waits, what waits is bounded, none is lost."""

import asyncio

import pytest

from app.domain import Event, EventType, Query
from app.errors import DependencyUnavailable
from app.metrics import Metrics
from app.write_behind import WriteBehindCache
from tests.fakes import FakeSlateCache
from tests.slates import recommended


class SlowCache(FakeSlateCache):
    """Writes when it may."""

    def __init__(self):
        super().__init__()
        self.go = asyncio.Event()
        self.writes = []
        self.error = None

    async def put(self, slates):
        self.writes.append(sorted(slates))
        await self.go.wait()
        if self.error:
            raise self.error
        await super().put(slates)


@pytest.fixture
def slow():
    return SlowCache()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def behind(slow, metrics):
    return WriteBehindCache(slow, metrics, timeout_s=60, max_waiting_bytes=10)


def failures(metrics):
    return {
        sample.labels["error"]: sample.value
        for sample in metrics.samples()
        if sample.name == "marquee_degraded_total"
    }


async def start_writing():
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_put_returns_before_the_write_and_its_slate_is_found_meanwhile(behind, slow):
    await behind.put({"a": b"1"})
    await start_writing()
    assert (slow.writes, slow.values) == ([["a"]], {})
    assert await behind.get(["a", "b"]) == [b"1", None]
    slow.go.set()
    await behind.written()
    assert slow.values == {"a": b"1"}
    assert await behind.get(["a"]) == [b"1"]


async def test_what_comes_during_a_write_goes_into_one_more(behind, slow):
    await behind.put({"a": b"1"})
    await start_writing()
    await behind.put({"b": b"2"})
    await behind.put({"a": b"3"})
    slow.go.set()
    await behind.written()
    assert slow.values == {"a": b"3", "b": b"2"}
    assert slow.writes == [["a"], ["a", "b"]]


async def test_no_more_waits_than_is_allowed_and_the_rest_is_counted(behind, slow, metrics):
    await behind.put({"a": b"12345678"})
    await behind.put({"b": b"123"})
    assert failures(metrics) == {"QueueFull": 1.0}
    slow.go.set()
    await behind.written()
    await behind.put({"b": b"123"})
    await behind.written()
    assert sorted(slow.values) == ["a", "b"]


@pytest.mark.parametrize("error", [DependencyUnavailable("cache: away"), TimeoutError()])
async def test_a_failed_write_is_counted_and_the_next_one_is_tried(behind, slow, metrics, error):
    slow.go.set()
    slow.error = error
    await behind.put({"a": b"1"})
    await behind.written()
    assert failures(metrics) == {type(error).__name__: 1.0}
    assert await behind.get(["a"]) == [None]
    slow.error = None
    await behind.put({"b": b"2"})
    await behind.written()
    assert slow.values == {"b": b"2"}


async def test_a_write_that_takes_too_long_is_given_up(slow, metrics):
    behind = WriteBehindCache(slow, metrics, timeout_s=0.001)
    await behind.put({"a": b"1"})
    await behind.written()
    assert failures(metrics) == {"TimeoutError": 1.0}


async def test_erasing_sees_what_waits(behind, slow):
    await behind.put({"user:1:a": b"1"})
    asking = asyncio.create_task(behind.keys("user:1:"))
    slow.go.set()
    assert await asking == ["user:1:a"]
    await behind.drop(["user:1:a"])
    assert await behind.get(["user:1:a"]) == [None]


async def test_feedback_never_meets_a_slate_that_was_still_to_be_written(world, bundle, slow):
    slates = WriteBehindCache(slow, world.metrics, timeout_s=60)
    recommender = world.recommender(cache=slates)
    user = int(bundle.user_ids[0])
    (before,) = await recommended(recommender, [Query(user)])
    (again,) = await recommended(recommender, [Query(user)])
    assert (before.from_cache, again.from_cache) == (False, True)
    item = bundle.items.ids[5]
    await world.state.append(Event(user, item, EventType.WATCH, 0))
    (waiting,) = await recommended(recommender, [Query(user)])
    slow.go.set()
    await recommender.close()
    (after,) = await recommended(recommender, [Query(user)])
    assert (waiting.from_cache, after.from_cache) == (False, True)
    assert after.recommendations == waiting.recommendations
    assert len(slow.values) == 2


async def test_closing_the_service_writes_what_waits(world, bundle):
    service = world.service()
    await service.recommend(Query(int(bundle.user_ids[0])))
    await service.close()
    assert len(world.cache.values) == 1
