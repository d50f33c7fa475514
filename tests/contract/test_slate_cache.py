"""What every slate cache promises."""

import pytest

from app.adapters.redis_cache import RedisSlateCache
from app.errors import DependencyUnavailable
from tests.fakes import FakeSlateCache


@pytest.fixture(params=["fake", "valkey"])
def cache(request):
    """An empty cache."""
    if request.param == "fake":
        return FakeSlateCache()
    return RedisSlateCache(request.getfixturevalue("valkey_url"), timeout_s=2, ttl_s=60)


async def test_what_was_put_is_found_and_the_rest_is_none(cache):
    await cache.put({"a": b"1", "b": b"\x00\xff"})
    assert await cache.get(["b", "nothing", "a"]) == [b"\x00\xff", None, b"1"]


async def test_a_later_value_replaces_the_earlier(cache):
    await cache.put({"a": b"1"})
    await cache.put({"a": b"2"})
    assert await cache.get(["a"]) == [b"2"]


async def test_values_expire_by_themselves(valkey_url):
    from redis.asyncio import Redis

    await RedisSlateCache(valkey_url, timeout_s=2, ttl_s=60).put({"a": b"1"})
    async with Redis.from_url(valkey_url) as redis:
        assert 0 < await redis.ttl("a") <= 60


async def test_a_server_that_is_away_is_a_dependency_unavailable(free_port):
    cache = RedisSlateCache(f"redis://127.0.0.1:{free_port}", timeout_s=0.2, ttl_s=60)
    for call in (cache.get(["a"]), cache.put({"a": b"1"})):
        with pytest.raises(DependencyUnavailable):
            await call
