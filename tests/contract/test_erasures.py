"""Erased users and five-minute counts, on the fakes and on a real Valkey."""

import asyncio
import json
import math
import time
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from redis import Redis
from typer.testing import CliRunner

from app import erasure_commands, event_commands
from app.adapters.event_log import EventLog
from app.adapters.redis_cache import RedisSlateCache
from app.adapters.redis_erasures import RedisErasures
from app.adapters.redis_features import RedisFeatures
from app.adapters.redis_state import RedisUserState
from app.adapters.redis_stream import RedisEventStream
from app.adapters.redis_windows import RedisWindowCounts
from app.cache_keys import user_prefix
from app.domain import Event, EventType, StoredUser, event_order
from app.erasing import Eraser
from app.windows import slot_of
from tests.fakes import FakeUserState, users_of


@pytest.fixture(params=["fake", "valkey"])
def stores(request):
    """(user state, erasures), both empty."""
    if request.param == "fake":
        state = FakeUserState()
        return state, state
    url = request.getfixturevalue("valkey_url")
    state = RedisUserState(url, timeout_s=2, max_user_bytes=1024)
    return state, RedisErasures(url, timeout_s=2)


def event(user, item=10, kind=EventType.WATCH, at_ms=1_700_000_000_000):
    return Event(user, item, kind, at_ms)


async def test_an_erased_user_has_no_events_another_revision_and_is_on_the_list(stores):
    state, erasures = stores
    before = await state.append(event("a|b"))
    await state.append(event("c"))
    note = await erasures.begin("a|b")
    known, other = await users_of(state, ["a|b", "c"])
    assert (known.events, known.erased, known.revision) == ((), True, note.event_id)
    assert event_order(note.event_id) > event_order(before)
    assert (note.removed, note.is_finished) == ({"state": 1}, False)
    assert (len(other.events), other.erased) == (1, False)
    assert await erasures.all() == {"a|b": note}


async def test_a_user_nobody_knows_can_be_erased_and_erased_again(stores):
    state, erasures = stores
    first = await erasures.begin(7)
    await state.append(event(7))
    second = await erasures.begin(7)
    assert (first.removed["state"], second.removed["state"]) == (0, 1)
    assert await erasures.all() == {"7": second}


async def test_an_erasure_goes_on_counting_from_what_was_noted_before(stores):
    state, erasures = stores
    await state.append(event(7))
    first = await erasures.begin(7)
    done = replace(first, removed=first.removed | {"stream": 5, "log": 2}, is_finished=True)
    await erasures.note(done)
    assert await erasures.all() == {"7": done}
    await state.append(event(7))
    await state.append(event(7))
    second = await erasures.begin(7)
    assert (second.removed, second.is_finished) == ({"state": 3, "stream": 5, "log": 2}, False)
    assert await erasures.all() == {"7": second}


async def test_feedback_after_an_erasure_is_all_that_is_known(stores):
    state, erasures = stores
    await state.append(event(7, 10))
    await erasures.begin(7)
    revision = await state.append(event(7, 20))
    (known,) = await users_of(state, [7])
    assert (known.events, known.erased) == ((("20", EventType.WATCH),), True)
    assert known.revision == revision


async def test_an_erased_user_with_much_feedback_stays_erased(valkey_url):
    state = RedisUserState(valkey_url, timeout_s=2, max_user_bytes=1024)
    await RedisErasures(valkey_url, timeout_s=2).begin(7)
    for item in range(100):
        await state.append(event(7, item))
    (known,) = await users_of(state, [7])
    assert known.erased
    assert 10 < len(known.events) < 40


async def test_stored_features_come_with_the_state_in_one_read_and_go_with_the_user(valkey_url):
    state = RedisUserState(valkey_url, timeout_s=2, max_user_bytes=1024)
    features = RedisFeatures(valkey_url, timeout_s=2)
    erasures = RedisErasures(valkey_url, timeout_s=2)
    assert await features.loaded_at() is None
    totals = (2.0, 0.0, 0.0, math.nan, 1_600_000_000.0, 1_700_000_000.0)
    old = StoredUser(1_700_000_000, "0-0", totals, (7, "x"))
    assert await features.write([(1, old), (2, old)]) == 2
    assert await features.loaded_at() <= time.time()
    await state.append(event(1))
    with Redis.from_url(valkey_url) as redis:
        before = redis.info("commandstats")
        first, second, third = await users_of(state, [1, 2, 3])
        after = redis.info("commandstats")
    calls = {name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"] for name in after}
    assert {name for name, count in calls.items() if count} <= {"cmdstat_mget", "cmdstat_info"}
    assert calls["cmdstat_mget"] == 1
    assert (first.stored.position, first.stored.item_ids, len(first.events)) == ("0-0", (7, "x"), 1)
    assert repr(first.stored.totals) == repr(old.totals)
    assert (second.stored is not None, second.events, third.stored) == (True, (), None)

    with Redis.from_url(valkey_url) as redis:
        redis.set("marquee:features:2", b'[0,"of another release"]')
    assert (await users_of(state, [2]))[0].stored is None

    erasure = await erasures.begin(1)
    assert (await users_of(state, [1]))[0].stored is None
    await features.write([(1, old)])  # by a run that did not know yet
    assert (await users_of(state, [1]))[0].stored is None
    assert set(await erasures.left(erasure)) == {"features"}
    since = replace(old, position=f"{time.time_ns() // 1_000_000 + 1}-0")
    await features.write([(1, since)])
    assert (await users_of(state, [1]))[0].stored.position == since.position
    assert await erasures.left(erasure) == {}


async def test_events_of_the_last_five_minutes_are_counted_for_user_and_item(valkey_url):
    state = RedisUserState(valkey_url, timeout_s=2, max_user_bytes=1024)
    now_ms = time.time_ns() // 1_000_000
    with Redis.from_url(valkey_url) as redis:
        redis.set("marquee:user:7", f"{now_ms - 301_000}-0|view|1\n")
    kinds = (EventType.VIEW, EventType.CLICK, EventType.CLICK)
    for kind in kinds:
        await state.append(event(7, "x|y", kind, now_ms))
    (known,) = await users_of(state, [7])
    assert (len(known.events), known.recent) == (4, 3)
    slot = slot_of(now_ms)
    before, now = await RedisWindowCounts(valkey_url, timeout_s=2).read([slot - 1, slot])
    assert before == {}
    assert now == {("x|y", EventType.VIEW): 1, ("x|y", EventType.CLICK): 2}


def marquee(*words):
    root = typer.Typer()
    erasure_commands.register(root)
    event_commands.register(root)
    return CliRunner().invoke(root, [str(word) for word in words])


def test_verify_finds_what_is_left_in_each_place_until_nothing_is(valkey_url, tmp_path):
    log, data = tmp_path / "log", tmp_path / "data"
    data.mkdir()
    (data / "statistics.json").write_text("{}")
    pq.write_table(pa.table({"user_id": [7, 8]}), data / "users.parquet")
    redis = ("--redis", valkey_url)
    verify = ("erasure", "verify", 7, *redis, "--log", log, "--data", data, "--json")

    async def give_feedback():
        state = RedisUserState(valkey_url, timeout_s=2, max_user_bytes=4096)
        await state.append(event(7))
        await state.append(event(8))

    asyncio.run(give_feedback())
    done = marquee(*verify)
    assert (done.exit_code, json.loads(done.stdout)["receipt"]) == (1, None)
    assert marquee("events", "export", "--log", log, *redis).exit_code == 0

    async def erase_all_but_the_log():
        cache = RedisSlateCache(valkey_url, timeout_s=2, ttl_s=600)
        stream = RedisEventStream(valkey_url, timeout_s=2)
        await cache.put({f"{user_prefix(7)}slate:0:x": b"", f"{user_prefix(8)}slate:0:x": b""})
        erasures = RedisErasures(valkey_url, timeout_s=2)
        receipt = await Eraser(erasures, stream, cache, None).erase(7)
        return receipt, await stream.read("0-0", 10), await cache.keys("")

    receipt, entries, keys = asyncio.run(erase_all_but_the_log())
    assert receipt.removed == {"state": 1, "stream": 1, "cache": 1}
    assert [entry.event.user_id for entry in entries] == ["8"]
    assert f"{user_prefix(8)}slate:0:x" in keys
    done = marquee(*verify)
    assert (done.exit_code, set(json.loads(done.stdout)["left"])) == (1, {"log", "data"})
    exported = marquee("events", "export", "--log", log, *redis, "--json")
    assert json.loads(exported.stdout)["erased"] == 1
    assert EventLog.open(str(log)).erasures()["7"]["event_id"] == receipt.event_id
    (data / "statistics.json").write_text(json.dumps({"erasures": receipt.event_id}))
    done = marquee(*verify)
    assert (done.exit_code, json.loads(done.stdout)["left"]) == (0, {})
    assert receipt.event_id in marquee("erasure", "list", *redis).stdout
