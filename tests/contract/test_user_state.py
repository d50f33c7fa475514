"""What every user state promises, whichever server keeps it."""

import asyncio

import pytest

from app.adapters.redis_state import RedisUserState
from app.domain import Event, EventType, UserEvents
from app.errors import DependencyUnavailable
from tests.fakes import FakeUserState, users_of


@pytest.fixture(params=["fake", "valkey"])
def state(request):
    """An empty state."""
    if request.param == "fake":
        return FakeUserState()
    url = request.getfixturevalue("valkey_url")
    return RedisUserState(url, timeout_s=2, max_user_bytes=4096)


def event(user, item, kind=EventType.WATCH):
    return Event(user, item, kind, 1_700_000_000_000)


async def test_an_unknown_user_has_no_events_and_revision_zero(state):
    assert await users_of(state, ["nobody", 7]) == [UserEvents(), UserEvents()]


async def test_events_come_back_oldest_first_with_the_newest_revision(state):
    await state.append(event(1, 10, EventType.CLICK))
    revision = await state.append(event(1, 20, EventType.DISLIKE))
    (known,) = await users_of(state, [1])
    assert known.revision == revision
    assert known.events == (("10", EventType.CLICK), ("20", EventType.DISLIKE))


async def test_every_event_changes_the_revision(state):
    revisions = [await state.append(event(2, 5)) for _ in range(3)]
    assert len(set(revisions)) == 3


async def test_a_batch_is_read_in_the_order_asked(state):
    await state.append(event("a", 1))
    await state.append(event("b", 2))
    b, nobody, a = await users_of(state, ["b", "c", "a"])
    assert [item for item, _ in b.events] == ["2"]
    assert nobody == UserEvents()
    assert [item for item, _ in a.events] == ["1"]


async def test_a_number_and_its_text_are_one_user(state):
    await state.append(event(42, 1))
    (known,) = await users_of(state, ["42"])
    assert len(known.events) == 1


async def test_a_long_text_loses_its_older_half_and_keeps_whole_events(valkey_url):
    state = RedisUserState(valkey_url, timeout_s=2, max_user_bytes=1024)
    for item in range(100):
        revision = await state.append(event(3, item))
    (known,) = await users_of(state, [3])
    items = [int(item) for item, _ in known.events]
    assert known.revision == revision
    assert items == list(range(items[0], 100))
    assert 10 < len(items) < 40


async def test_ids_with_separators_survive(state):
    await state.append(event("a|b:c", "x|y z"))
    (known,) = await users_of(state, ["a|b:c"])
    assert known.events == (("x|y z", EventType.WATCH),)


async def test_concurrent_events_of_one_user_are_all_kept(state):
    await asyncio.gather(*(state.append(event(9, item)) for item in range(3)))
    (known,) = await users_of(state, [9])
    assert {item for item, _ in known.events} == {"0", "1", "2"}


async def test_a_server_that_is_away_is_a_dependency_unavailable(free_port):
    state = RedisUserState(f"redis://127.0.0.1:{free_port}", timeout_s=0.2, max_user_bytes=4096)
    for call in (state.read([1]), state.append(event(1, 1)), state.ping()):
        with pytest.raises(DependencyUnavailable):
            await call
