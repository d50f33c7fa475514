"""An erased user is nobody: for slates, for the history and for what was cached."""

import orjson
import pytest

from app.cache_keys import user_prefix
from app.domain import Event, EventType, Query, StreamEntry
from app.erasing import Eraser
from app.errors import CursorExpired, CursorUnknown, DependencyUnavailable


@pytest.fixture
def user(bundle):
    return int(bundle.user_ids[0])


def rows(slate):
    return [row["movie_id"] for row in orjson.loads(slate.recommendations)]


async def test_a_user_of_the_bundle_is_unknown_once_erased_and_the_cache_is_empty(world, user):
    service = world.service()
    before = await service.recommend(Query(user))
    assert before.strategy == "personal"
    receipt = await service.erase(user)
    assert (receipt.removed["cache"], receipt.is_finished) == (1, True)
    after = await service.recommend(Query(user))
    nobody = await service.recommend(Query("nobody"))
    assert (after.strategy, after.from_cache) == ("popular", False)
    assert rows(after) == rows(nobody)
    assert (await service.history(user, 100)).rows == []
    assert receipt.removed["state"] == 0


async def test_the_pages_of_an_erased_user_are_gone(world, user):
    service = world.service()
    cursor = (await service.first_page(Query(user, limit=2))).next_cursor
    with pytest.raises(CursorUnknown):
        await service.next_page("nobody", cursor, None)
    receipt = await service.erase(user)
    assert receipt.removed["cache"] == 2  # the slate and what its pages are read from
    with pytest.raises(CursorExpired):
        await service.next_page(user, cursor, None)


async def test_feedback_after_that_starts_a_new_and_empty_user(world, user, bundle):
    service = world.service()
    old, new = bundle.items.ids[0], bundle.items.ids[1]
    await service.feedback(user, old, EventType.WATCH)
    assert (await service.erase(user)).removed["state"] == 1
    await service.feedback(user, new, EventType.WATCH)
    assert [row["movie_id"] for row in (await service.history(user, 100)).rows] == [new]
    slate = await service.recommend(Query(user))
    assert slate.strategy == "personal"
    assert old in rows(await service.recommend(Query(user, limit=60)))


async def test_an_erased_user_stays_unknown_while_the_state_is_away(world, user):
    service = world.service()
    await service.erase(user)
    await world.live.look()
    world.state.away = True
    slate = await service.recommend(Query(user))
    assert (slate.strategy, slate.degraded) == ("popular", ("user_state",))
    assert (await service.history(user, 100)).rows == []
    assert user not in service.users(1000)


async def test_what_is_left_is_found_place_by_place(world, user):
    eraser = Eraser(world.state, world.stream, world.cache, None)
    event = Event(str(user), "10", EventType.CLICK, 1)
    await world.state.append(event)
    await world.state.append(event)
    await world.stream.append([StreamEntry("1-0", event), StreamEntry("2-0", event)])
    erasure = await world.state.begin(user)
    prefix = user_prefix(user)
    await world.cache.put({f"{prefix}slate:2-0:a": b"", f"{prefix}slate:9-0:b": b""})
    assert await eraser.left(erasure) == {
        "record": "the erasure was interrupted: send the DELETE again",
        "stream": "2 entries, the first is 1-0",
        "cache": "1 slates from before",
    }
    receipt = await eraser.erase(user)
    assert receipt.removed == {"state": 2, "stream": 2, "cache": 2}
    assert await eraser.left(receipt) == {}


async def test_receipts_add_up_over_all_erasures_of_a_user(world):
    eraser = Eraser(world.state, world.stream, world.cache, None)
    receipts = []
    for round_, count in enumerate((2, 0, 1), start=1):
        for number in range(count):
            event = Event("7", "10", EventType.CLICK, 1)
            await world.state.append(event)
            # The fake state's ids are small, and these must be less than the erasure's.
            await world.stream.append([StreamEntry(f"0-{10 * round_ + number}", event)])
        await world.cache.put({f"{user_prefix('7')}slate:{round_}-0:a": b""})
        receipts.append((await eraser.erase("7")).removed)
    assert receipts == [
        {"state": 2, "stream": 2, "cache": 1},
        {"state": 2, "stream": 2, "cache": 2},
        {"state": 3, "stream": 3, "cache": 3},
    ]
    assert world.state.erased["7"].removed == receipts[-1]


async def test_what_an_interrupted_erasure_removed_is_counted(world):
    eraser = Eraser(world.state, world.stream, world.cache, None)
    event = Event("7", "10", EventType.CLICK, 1)
    await world.state.append(event)
    await world.stream.append([StreamEntry("0-1", event)])
    world.cache.away = True
    with pytest.raises(DependencyUnavailable):
        await eraser.erase("7")
    world.cache.away = False
    assert (await eraser.erase("7")).removed == {"state": 1, "stream": 1, "cache": 0}


async def test_an_erasure_that_cannot_reach_the_cache_is_asked_for_again(world, user):
    service = world.service()
    world.cache.away = True
    with pytest.raises(DependencyUnavailable):
        await service.erase(user)
    assert not world.state.erased[str(user)].is_finished
    world.cache.away = False
    assert (await service.recommend(Query(user))).strategy == "popular"
    assert (await service.erase(user)).is_finished
