"""The online path with real stages on a tiny bundle and stores in memory."""

import asyncio
from dataclasses import replace

import numpy as np
import orjson
import pytest

from app.adapters.local_stages import LocalStages
from app.adapters.qdrant_edge import QdrantEdgeIndex
from app.domain import Event, EventType, Query, Strategy, UserEvents
from app.errors import DependencyUnavailable
from app.stages.history import known
from tests.slates import recommended


def ids(slate):
    return [row["movie_id"] for row in orjson.loads(slate.recommendations)]


def whys(slate):
    return [row["why"] and row["why"]["text"] for row in orjson.loads(slate.recommendations)]


def known_user(bundle):
    """A user with a history."""
    lengths = np.diff(bundle.user_offsets)
    return int(bundle.user_ids[int(lengths.argmax())])


class Broken:
    """Every stage at once, none of which answers."""

    async def embed(self, *_):
        raise DependencyUnavailable("embed: broken")

    async def retrieve(self, *_):
        raise DependencyUnavailable("retrieve: broken")

    async def rank(self, *_):
        raise DependencyUnavailable("rank: broken")


class Hanging:
    """A ranker that never answers."""

    async def rank(self, *_):
        await asyncio.sleep(60)


async def one(recommender, query):
    (slate,) = await recommended(recommender, [query])
    return slate


async def test_a_known_user_gets_a_personal_slate_of_the_size_asked(world, bundle):
    slate = await one(world.recommender(), Query(known_user(bundle), limit=7))
    assert slate.strategy is Strategy.PERSONAL
    assert slate.degraded == ()
    assert len(set(ids(slate))) == 7


async def test_scores_descend_and_every_item_says_why(world, bundle):
    user = known_user(bundle)
    slate = await one(world.recommender(), Query(user))
    rows = orjson.loads(slate.recommendations)
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    watched = {bundle.items.ids[i] for i in bundle.history(user).tolist()}
    assert any(row["why"] for row in rows)
    for row in filter(lambda row: row["why"], rows):
        assert row["why"]["because"]["movie_id"] in watched
        assert row["why"]["text"].startswith("Because you watched ")
        assert 0 < row["why"]["similarity"] <= 1.001


async def test_watched_items_are_excluded_unless_asked_for(world, bundle):
    user = known_user(bundle)
    watched = {bundle.items.ids[i] for i in bundle.history(user).tolist()}
    everything = len(bundle.items)
    without = ids(await one(world.recommender(), Query(user, limit=everything)))
    assert not watched & set(without)
    assert len(without) == everything - len(watched)
    query = Query(user, limit=everything, exclude_watched=False)
    assert watched <= set(ids(await one(world.recommender(), query)))


async def test_filters_hold_and_still_fill_the_slate(world, bundle):
    genre = bundle.manifest.genres[0]
    has = {bundle.items.ids[i] for i, genres in enumerate(bundle.items.genres) if genre in genres}
    query = Query(known_user(bundle), limit=60, genres=(genre,), exclude_watched=False)
    assert set(ids(await one(world.recommender(), query))) == has


async def test_excluded_ids_never_appear(world, bundle):
    user = known_user(bundle)
    first = ids(await one(world.recommender(), Query(user)))
    again = ids(await one(world.recommender(), Query(user, exclude_ids=tuple(first))))
    assert not set(first) & set(again)


async def test_an_unknown_user_gets_popular_items(world, bundle):
    slate = await one(world.recommender(), Query("nobody", limit=5))
    assert slate.strategy is Strategy.POPULAR
    assert ids(slate) == [bundle.items.ids[i] for i in bundle.popularity[:5]]


async def test_an_unknown_user_with_a_history_gets_a_personal_slate(world, bundle):
    history = tuple(bundle.items.ids[:3])
    slate = await one(world.recommender(), Query("nobody", history=history))
    assert slate.strategy is Strategy.PERSONAL
    assert not set(history) & set(ids(slate))


async def test_a_batch_answers_each_query_as_if_it_were_alone(world, bundle):
    users = [int(u) for u in bundle.user_ids[:6]]
    queries = [Query(user, limit=n) for n, user in enumerate(users, 3)] + [Query("nobody", limit=3)]
    recommender = world.recommender()
    together = await recommended(recommender, [replace(q, read_cache=False) for q in queries])
    alone = [await one(recommender, replace(q, read_cache=False)) for q in queries]
    assert [ids(s) for s in together] == [ids(s) for s in alone]
    assert [whys(s) for s in together] == [whys(s) for s in alone]


async def test_feedback_changes_the_next_slate(world, bundle):
    user = known_user(bundle)
    recommender = world.recommender()
    before = ids(await one(recommender, Query(user)))
    await world.state.append(Event(user, before[0], EventType.WATCH, 0))
    after = ids(await one(recommender, Query(user)))
    assert before[0] not in after
    assert before != after


async def test_a_disliked_item_stays_away_even_when_watched_ones_are_wanted(world, bundle):
    user = known_user(bundle)
    item = bundle.items.ids[int(bundle.history(user)[0])]
    await world.state.append(Event(user, item, EventType.DISLIKE, 0))
    query = Query(user, limit=60, exclude_watched=False)
    assert item not in ids(await one(world.recommender(), query))


async def test_a_click_makes_a_new_user_personal(world, bundle):
    await world.state.append(Event("new", bundle.items.ids[4], EventType.CLICK, 0))
    slate = await one(world.recommender(), Query("new"))
    assert slate.strategy is Strategy.PERSONAL


async def test_the_second_answer_comes_from_the_cache_and_is_the_same(world, bundle):
    recommender = world.recommender()
    query = Query(known_user(bundle))
    first, second = await one(recommender, query), await one(recommender, query)
    assert (first.from_cache, second.from_cache) == (False, True)
    assert first.recommendations == second.recommendations
    assert second.strategy is first.strategy


async def test_a_request_may_refuse_the_cache(world, bundle):
    recommender = world.recommender()
    query = Query(known_user(bundle))
    await one(recommender, query)
    assert not (await one(recommender, replace(query, read_cache=False))).from_cache


async def test_another_version_never_reads_this_ones_slates(world, bundle):
    query = Query(known_user(bundle))
    await one(world.recommender(), query)
    manifest = bundle.manifest.model_copy(update={"version": "2"})
    other = replace(world.model, bundle=replace(bundle, manifest=manifest))
    slate = await one(world.recommender(current=lambda: other), query)
    assert not slate.from_cache
    assert slate.model_version == "2"


async def test_without_the_user_state_the_bundles_history_answers_and_nothing_is_cached(
    world, bundle
):
    world.state.away = True
    slate = await one(world.recommender(), Query(known_user(bundle)))
    assert slate.strategy is Strategy.PERSONAL
    assert slate.degraded == ("user_state",)
    await world.slates.written()
    assert not world.cache.values


async def test_without_the_cache_slates_are_computed(world, bundle):
    world.cache.away = True
    slate = await one(world.recommender(), Query(known_user(bundle)))
    assert slate.strategy is Strategy.PERSONAL
    assert slate.degraded == ("cache",)


@pytest.mark.parametrize("stage", ["embedder", "retriever"])
async def test_without_the_tower_or_the_index_popular_items_answer(world, bundle, stage):
    user = known_user(bundle)
    slate = await one(world.recommender(**{stage: Broken()}), Query(user))
    assert slate.strategy is Strategy.POPULAR
    assert slate.degraded == ({"embedder": "embed", "retriever": "retrieve"}[stage],)
    watched = {bundle.items.ids[i] for i in bundle.history(user).tolist()}
    assert not watched & set(ids(slate))


@pytest.mark.parametrize("ranker", [Broken(), Hanging()])
async def test_without_the_ranker_the_retrieval_order_answers(world, bundle, ranker):
    user = known_user(bundle)
    slate = await one(world.recommender(ranker=ranker), Query(user))
    assert slate.strategy is Strategy.PERSONAL
    assert slate.degraded == ("rank",)
    scores = [row["score"] for row in orjson.loads(slate.recommendations)]
    assert scores == sorted(scores, reverse=True)


async def test_what_is_behind_the_rankers_depth_keeps_the_order_of_retrieval_and_scores_less(
    world, bundle
):
    shallow = LocalStages(lambda version: bundle.path, QdrantEdgeIndex, rank_depth=8)
    query = Query(known_user(bundle), limit=20, read_cache=False)
    retrieved = ids(await one(world.recommender(ranker=Broken()), query))
    slate = await one(world.recommender(ranker=shallow), query)
    scores = [row["score"] for row in orjson.loads(slate.recommendations)]
    assert scores == sorted(scores, reverse=True)
    assert scores[8:] == pytest.approx([scores[7] - n for n in range(1, 13)], abs=1e-3)
    assert set(ids(slate)[:8]) == set(retrieved[:8])
    assert ids(slate)[8:] == retrieved[8:]


async def test_an_item_that_was_only_clicked_was_looked_at_until_it_is_watched(world, bundle):
    item = bundle.items.ids[4]
    for event_type, said in [
        (EventType.CLICK, "Because you looked at "),
        (EventType.WATCH, "Because you watched "),
        (EventType.VIEW, "Because you watched "),
    ]:
        await world.state.append(Event("new", item, event_type, 0))
        for _ in range(2):  # computed, and from the cache
            slate = await one(world.recommender(), Query("new"))
            found = [text for text in whys(slate) if text]
            assert found
            assert all(text.startswith(said) for text in found)
        ruled = await one(world.recommender(), Query("new", explain=True))
        assert whys(ruled) == whys(slate)


async def test_of_a_batch_each_user_has_looked_at_their_own(world, bundle):
    item = bundle.items.ids[4]
    await world.state.append(Event("looks", item, EventType.VIEW, 0))
    await world.state.append(Event("watches", item, EventType.LIKE, 0))
    slates = await recommended(world.recommender(), [Query("watches"), Query("looks")])
    verbs = [{text.split()[2] for text in whys(slate) if text} for slate in slates]
    assert verbs == [{"watched"}, {"looked"}]


def test_only_looked_at_is_what_was_neither_watched_nor_in_the_past(bundle):
    user = known_user(bundle)
    past = bundle.items.ids[int(bundle.history(user)[0])]
    new = [i for i in range(len(bundle.items)) if i not in set(bundle.history(user).tolist())]
    seen, watched, gone = (bundle.items.ids[i] for i in new[:3])
    events = (
        (past, EventType.CLICK), (seen, EventType.VIEW), (seen, EventType.CLICK),
        (watched, EventType.WATCH), (watched, EventType.VIEW),
        (gone, EventType.CLICK), (gone, EventType.DISLIKE),
    )  # fmt: skip
    assert known(bundle, Query(user), UserEvents(events=events)).looked_at == {new[0]}


async def test_a_degraded_slate_is_not_cached(world, bundle):
    await one(world.recommender(ranker=Broken()), Query(known_user(bundle)))
    await world.slates.written()
    assert not world.cache.values


async def test_a_slate_whose_version_came_between_look_up_and_computing_is_not_cached(
    world, bundle
):
    manifest = bundle.manifest.model_copy(update={"version": "2"})
    other = replace(world.model, bundle=replace(bundle, manifest=manifest))
    models = iter([world.model, other])
    slate = await one(world.recommender(current=lambda: next(models)), Query(known_user(bundle)))
    await world.slates.written()
    assert (slate.model_version, slate.degraded) == ("2", ())
    assert not world.cache.values


class HeldUp:
    """A ranker that answers when it may."""

    def __init__(self, ranker):
        self.go = asyncio.Event()
        self.sizes = []
        self._ranker = ranker

    async def rank(self, version, histories, candidates):
        self.sizes.append(len(candidates.items))
        await self.go.wait()
        return await self._ranker.rank(version, histories, candidates)


async def test_who_is_in_the_cache_does_not_wait_for_who_is_not(world, bundle):
    hit, *others = (Query(user) for user in bundle.user_ids[:5].tolist())
    await one(world.recommender(), hit)
    ranker = HeldUp(world.stages)
    service = world.service(ranker=ranker)
    misses = [asyncio.create_task(service.recommend(query)) for query in others]
    # Once in the same look-up as the misses, once while they fill all places in the graph.
    for _ in range(2):
        assert (await service.recommend(hit)).from_cache
        assert not any(miss.done() for miss in misses)
    while not ranker.sizes:
        await asyncio.sleep(0)
    assert (await service.recommend(hit)).from_cache
    assert not any(miss.done() for miss in misses)
    ranker.go.set()
    assert [slate.from_cache for slate in await asyncio.gather(*misses)] == 4 * [False]
    assert sum(ranker.sizes) == 4


async def computing(service, ranker, queries):
    """The answers to come, once their slates are being computed."""
    answers = [asyncio.create_task(service.recommend(query)) for query in queries]
    while not ranker.sizes:
        await asyncio.sleep(0)
    return answers


async def test_the_same_slate_is_computed_once_for_all_who_ask_meanwhile(world, bundle):
    ranker = HeldUp(world.stages)
    service = world.service(ranker=ranker)
    query = Query(known_user(bundle), read_cache=False)
    answers = await computing(service, ranker, [query, query, replace(query, read_cache=True)])
    answers.append(asyncio.create_task(service.recommend(query)))
    await asyncio.sleep(0.01)
    ranker.go.set()
    slates = await asyncio.gather(*answers)
    assert sum(ranker.sizes) == 1
    assert len({slate.recommendations for slate in slates}) == 1
    assert not any(slate.from_cache for slate in slates)


async def test_another_request_or_feedback_meanwhile_has_its_own_slate(world, bundle):
    ranker = HeldUp(world.stages)
    service = world.service(ranker=ranker)
    query = Query(known_user(bundle), read_cache=False)
    answers = await computing(service, ranker, [query, replace(query, limit=3)])
    watched = bundle.items.ids[int(bundle.popularity[0])]
    await world.state.append(Event(query.user_id, watched, EventType.WATCH, 0))
    answers.append(asyncio.create_task(service.recommend(query)))
    await asyncio.sleep(0.01)
    ranker.go.set()
    before, short, after = await asyncio.gather(*answers)
    assert sum(ranker.sizes) == 3
    assert (len(ids(before)), len(ids(short))) == (10, 3)
    assert watched not in ids(after)
