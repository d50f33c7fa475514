"""The last five minutes: counted, kept while the store is away, and felt in the slate."""

import numpy as np
import pytest

from app.adapters.none import never_loaded
from app.domain import Candidates, Event, EventType, Histories, Query
from app.live import Live
from app.moment import MomentRanker
from app.stages.moment import adjusted
from app.windows import SLOT_S, SLOTS, ItemWindow, slot_of, sum_slots
from tests.slates import recommended

NOW_MS = 1_800_000_000_000
NEWEST = slot_of(NOW_MS)


@pytest.fixture
def clock():
    return [NOW_MS / 1000]


@pytest.fixture
def live(world, clock):
    return Live(
        world.counts, world.state, world.metrics,
        loaded_at=never_loaded, every_s=60, clock=lambda: clock[0],
    )  # fmt: skip


def test_a_window_sums_its_slots_and_its_velocity_is_of_the_newest_minute():
    slots = [{} for _ in range(SLOTS)]
    slots[0] = {("7", EventType.VIEW): 2, ("8", EventType.DISLIKE): 9}
    slots[-4] = {("7", EventType.CLICK): 3}
    slots[-1] = {("7", EventType.WATCH): 1}
    assert sum_slots(slots) == {"7": ItemWindow(views=2, clicks=3, wanted=6, velocity=4.0)}


async def test_only_slots_that_may_still_change_are_read_again(world, live, clock):
    await live.look()
    assert len(world.counts.asked[0]) == SLOTS
    clock[0] += SLOT_S
    await live.look()
    assert world.counts.asked[1] == [NEWEST, NEWEST + 1]


async def test_a_slot_that_leaves_the_window_is_forgotten(world, live, clock):
    world.counts.slots[NEWEST] = {("10", EventType.CLICK): 1}
    await live.look()
    assert live.windows["10"].clicks == 1
    clock[0] += SLOT_S * SLOTS
    await live.look()
    assert live.windows == {}


async def test_a_store_that_is_away_leaves_what_is_known_and_its_age_grows(world, live, clock):
    world.counts.slots[NEWEST] = {("10", EventType.CLICK): 1}
    await world.state.begin("7")
    await live.look()
    world.counts.away = world.state.away = True
    clock[0] += 30
    await live.look()
    assert live.windows["10"].clicks == 1
    assert live.is_erased(7)
    line = 'marquee_feature_age_seconds{feature="item_window"} 30.0'
    assert line in world.metrics.exposition().decode()


async def test_heat_is_relative_to_the_fastest_item_and_none_when_nothing_moves(
    world, live, bundle
):
    await live.look()
    assert live.heat(bundle) is None
    ids = bundle.items.ids
    world.counts.slots[NEWEST] = {(str(ids[3]), EventType.CLICK): 7, ("none", EventType.VIEW): 99}
    world.counts.slots[NEWEST] |= {(str(ids[5]), EventType.VIEW): 1}
    await live.look()
    heat = live.heat(bundle)
    assert heat[3] == 1
    assert heat[5] == pytest.approx(np.log(2) / np.log(8))
    assert np.count_nonzero(heat) == 2


def candidates(*rows):
    items = np.array(rows, np.int32)
    return Candidates(items, np.zeros(items.shape, np.float32))


GENRES = np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32)
SCORES = np.array([[3.0, 1.0, -np.inf]], np.float32)  # deviation 1


def histories(recent):
    return Histories(
        np.array([0, 1], np.int32), np.array([0, 2]), np.array([-1], np.int32),
        np.array([recent], np.int32),
    )  # fmt: skip


def test_scores_move_by_weight_times_deviation_and_padding_stays():
    moved = adjusted(
        SCORES, candidates([0, 1, -1]), histories(0), np.array([0, 1, 0.5], np.float32), GENRES,
        trend_weight=0.5, session_weight=0.5,
    )  # fmt: skip
    assert moved.tolist() == [[3.0, 1.5, -np.inf]]


def test_genres_of_the_last_minutes_gain_and_older_ones_do_not():
    moved = adjusted(
        SCORES, candidates([0, 1, -1]), histories(1), None, GENRES,
        trend_weight=0.5, session_weight=0.5,
    )  # fmt: skip
    assert moved.tolist() == [[3.0, 1.5, -np.inf]]


def test_what_the_ranker_did_not_score_stays_behind_and_out_of_the_deviation():
    moved = adjusted(
        SCORES[:, :2], candidates([0, 1, 2, 2, -1]), histories(1),
        np.array([0, 1, 1], np.float32), GENRES, trend_weight=0.5, session_weight=0.5,
    )  # fmt: skip
    assert moved.tolist() == [[3.0, 2.0]]


def test_without_events_scores_are_those_of_the_ranker():
    assert (
        adjusted(SCORES, candidates([0, 1, -1]), histories(0), None, GENRES,
                 trend_weight=0.5, session_weight=0.5)
        is SCORES
    )  # fmt: skip


async def test_an_item_that_everybody_clicks_moves_up_in_the_next_slate(world, bundle):
    recommender = world.recommender(
        ranker=MomentRanker(
            world.stages, world.live, lambda: world.model, trend_weight=50, session_weight=0
        )
    )
    user = int(bundle.user_ids[0])
    query = Query(user, limit=20, read_cache=False)
    (before,) = await recommended(recommender, [query])
    last = [row["movie_id"] for row in _rows(before)][-1]
    await world.state.append(Event(99, last, EventType.CLICK, NOW_MS))
    world.counts.slots[slot_of(int(world.live._clock() * 1000))] = {(str(last), EventType.CLICK): 5}
    await world.live.look()
    (after,) = await recommended(recommender, [query])
    assert _rows(after)[0]["movie_id"] == last


def _rows(slate):
    import orjson

    return orjson.loads(slate.recommendations)
