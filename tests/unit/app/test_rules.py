"""What always holds of a slate, whatever is asked: random requests against the real stages."""

import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import orjson
import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from app import api_commands, assembly
from app.adapters.local_stages import LocalStages
from app.adapters.qdrant_edge import QdrantEdgeIndex
from app.domain import Event, EventType, Query
from app.errors import DependencyUnavailable
from app.pipeline import Limits
from app.rules import Boost, Freshness, Pin, Rules, Sentences, merged
from app.rules_json import RuleBook, RulesError, read_rules
from app.stages.render import RenderStage
from app.stages.rules import RulesStage
from tests.bundles import GENRES
from tests.slates import recommended

ITEMS = st.integers(1, 60).map(lambda n: 10 * n)
SOME_ITEMS = st.lists(ITEMS, max_size=12).map(tuple)
SOME_GENRES = st.lists(st.sampled_from(GENRES), max_size=2, unique=True).map(tuple)
YEARS = st.none() | st.integers(1950, 2020)

RULES = st.builds(
    Rules,
    block_ids=SOME_ITEMS,
    block_genres=SOME_GENRES,
    boosts=st.lists(
        st.builds(Boost, st.floats(-2, 2), SOME_ITEMS, SOME_GENRES, YEARS, YEARS), max_size=2
    ).map(tuple),
    freshness=st.none() | st.builds(Freshness, st.floats(0, 1), st.floats(1, 20)),
    mmr_lambda=st.none() | st.floats(0, 1),
    max_per=st.sampled_from([(), (("genre", 2),), (("decade", 1), ("genre", 4))]),
    pins=st.lists(st.builds(Pin, ITEMS, st.integers(1, 15)), max_size=4).map(tuple),
)
QUERIES = st.builds(
    Query,
    user_id=st.integers(1, 45),  # the bundle knows 40
    limit=st.integers(1, 70),
    genres=SOME_GENRES,
    min_rating=st.none() | st.floats(1, 5),
    year_from=YEARS,
    year_to=YEARS,
    exclude_watched=st.booleans(),
    exclude_ids=SOME_ITEMS,
    history=SOME_ITEMS,
    rules=st.none() | RULES,
    explain=st.booleans(),
)
RANDOM = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Away:
    """A ranker that does not answer."""

    async def rank(self, *_):
        raise DependencyUnavailable("rank: away")


@pytest.fixture(scope="module")
def shallow(bundle):
    """Ranks half of the 20 candidates."""
    return LocalStages(lambda version: bundle.path, QdrantEdgeIndex, rank_depth=10)


async def one(recommender, query):
    (slate,) = await recommended(recommender, [query])
    return orjson.loads(slate.recommendations)


def fits(query, row):
    """Whether the row satisfies the query's filters."""
    low, high, year = query.year_from, query.year_to, row["year"]
    rating = row["avg_rating"]
    return (
        (not query.genres or bool(set(query.genres) & set(row["genres"])))
        # What is shown is rounded to two digits.
        and (query.min_rating is None or (rating or 0) >= query.min_rating - 0.005)
        and (low is None or (year is not None and year >= low))
        and (high is None or (year is not None and year <= high))
    )


@RANDOM
@given(query=QUERIES, event=st.sampled_from(["watch", "dislike", "click"]))
async def test_filters_exclusions_limits_blocks_caps_and_pins_hold(world, bundle, query, event):
    await world.state.append(Event(query.user_id, 300, EventType(event), 0))
    rows = await one(world.recommender(), query)
    ids = [row["movie_id"] for row in rows]
    rules = query.rules or Rules()
    assert len(ids) == len(set(ids)) <= query.limit
    assert all(fits(query, row) for row in rows)
    assert not set(ids) & (set(query.exclude_ids) | set(rules.block_ids))
    assert not any(set(row["genres"]) & set(rules.block_genres) for row in rows)
    watched = {bundle.items.ids[i] for i in bundle.history(query.user_id)} | set(query.history)
    if query.exclude_watched:
        assert not set(ids) & (watched - {300})
        assert event == "click" or 300 not in ids
    assert event != "dislike" or 300 not in ids
    pinned = {pin.item_id for pin in rules.pins}
    for attribute, most in rules.max_per:
        values = Counter(v for row in rows for v in kinds(row, attribute))
        by_pins = Counter(v for r in rows if r["movie_id"] in pinned for v in kinds(r, attribute))
        assert all(n <= max(most, by_pins[value]) for value, n in values.items())
    if not rules.max_per:  # then nothing keeps the slate from being as long as asked
        assert len(rows) == min(query.limit, len(await allowed(world, query)))


def kinds(row, attribute):
    if attribute == "genre":
        return row["genres"]
    return [] if row["year"] is None else [row["year"] // 10]


async def allowed(world, query):
    """Everything that the query's conditions and blocks leave."""
    rules = replace(query.rules, pins=()) if query.rules else None
    return await one(world.recommender(), replace(query, limit=100, rules=rules, explain=False))


@RANDOM
@given(query=QUERIES, pin=st.builds(Pin, ITEMS, st.integers(1, 10)))
async def test_a_pin_that_the_user_may_see_is_at_its_place(world, query, pin):
    query = replace(query, rules=Rules(pins=(pin,)), limit=10)
    able = {row["movie_id"] for row in await allowed(world, query)}
    ids = [row["movie_id"] for row in await one(world.recommender(), query)]
    if pin.item_id in able:
        assert ids.index(pin.item_id) == min(pin.position, len(ids)) - 1
    else:
        assert pin.item_id not in ids


@RANDOM
@given(query=QUERIES)
async def test_rules_that_ask_for_nothing_change_nothing(world, query):
    plain = await one(world.recommender(), replace(query, rules=None, explain=False))
    ruled = await one(world.recommender(), replace(query, rules=Rules(), explain=False))
    assert ruled == plain


@RANDOM
@given(
    query=QUERIES,
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    event=st.sampled_from(list(EventType)),
)
async def test_pages_are_one_slate_without_duplicates_or_gaps(world, query, sizes, event):
    service = world.service()
    query = replace(query, explain=False, limit=sizes[0])
    (whole,) = await recommended(world.recommender(), [replace(query, limit=500)])
    page = await service.first_page(query)
    service._recommender = None  # no later page is computed, so no promotion can change it
    rows = orjson.loads(page.slate.recommendations)
    turn = 0
    while page.next_cursor is not None:
        turn += 1
        # Feedback in between changes the next slate, not this one.
        if turn < 4:
            await world.state.append(Event(query.user_id, 10 * turn, event, turn))
        again = await service.next_page(query.user_id, page.next_cursor, None)
        page = await service.next_page(query.user_id, page.next_cursor, sizes[turn % len(sizes)])
        found = orjson.loads(page.slate.recommendations)
        common = zip(orjson.loads(again.slate.recommendations), found, strict=False)
        assert all(one == other for one, other in common)
        rows += found
    assert rows == orjson.loads(whole.recommendations)


@pytest.mark.parametrize("is_away", [False, True])
@RANDOM
@given(query=QUERIES, rules=RULES, limit=st.integers(1, 20), more=st.integers(1, 60))
async def test_a_slate_under_rules_begins_as_a_shorter_one_does(
    world, shallow, is_away, query, rules, limit, more
):
    # A pin behind the shorter one's end has no effect there.
    pins = tuple(pin for pin in rules.pins if pin.position <= limit)
    query = replace(query, rules=replace(rules, pins=pins), limit=limit, explain=False)
    recommender = world.recommender(ranker=Away() if is_away else shallow)
    short = [row["movie_id"] for row in await one(recommender, query)]
    longer = await one(recommender, replace(query, limit=limit + more))
    assert [row["movie_id"] for row in longer[: len(short)]] == short


async def test_relevance_is_scaled_over_what_was_ranked_and_below_0_behind(world, shallow):
    for limit in (20, 60):
        query = Query(3, limit=limit, rules=Rules(), explain=True)
        rows = await one(world.recommender(ranker=shallow), query)
        relevance = [row["explain"]["scores"]["relevance"] for row in rows]
        assert (relevance[0], relevance[9]) == (1, 0)
        assert min(np.diff(relevance[:10])) < -0.05  # spread out, not all near 1
        assert relevance[10:20] == pytest.approx([10 / place - 1 for place in range(11, 21)])
        behind = [row["explain"]["scores"]["ranked"] for row in rows[10:]]
        assert behind == (len(rows) - 10) * [None]


async def test_boosts_and_freshness_move_candidates_up(world, bundle):
    query = Query(3, limit=60, read_cache=False)
    recommender = world.recommender(limits=Limits(candidates=60))
    plain = [row["movie_id"] for row in await one(recommender, query)]
    last = plain[-1]
    boosted = replace(query, rules=Rules(boosts=(Boost(5.0, item_ids=(last,)),)))
    assert (await one(recommender, boosted))[0]["movie_id"] == last
    # What is no candidate does not get in front of the 20 that are.
    behind = [row["movie_id"] for row in await one(world.recommender(), boosted)]
    assert behind.index(last) == 20
    fresh = replace(query, rules=Rules(freshness=Freshness(10.0, 1.0)))
    years = [row["year"] for row in await one(recommender, fresh) if row["year"]]
    assert years[0] == max(years)


async def test_of_pins_that_contradict_each_other_the_later_holds(world):
    first, second = (row["movie_id"] for row in (await one(world.recommender(), Query(3)))[5:7])

    async def slate(*pins):
        rules = Rules(pins=tuple(Pin(item, place) for item, place in pins))
        rows = await one(world.recommender(), Query(3, limit=10, rules=rules))
        return [row["movie_id"] for row in rows]

    assert (await slate((first, 1), (second, 1)))[0] == second
    assert (await slate((first, 1), (first, 3)))[2] == first
    assert (await slate((first, 1), (second, 1), (second, 2)))[:2] == [first, second]
    assert await slate((first, 11)) == await slate()


async def test_mmr_puts_unlike_items_first(world, bundle):
    def nearest(rows):
        items = [bundle.item_index(row["movie_id"]) for row in rows]
        unit = bundle.item_vectors[items][:, :-1]
        unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
        cosine = unit @ unit.T
        return cosine[np.triu_indices(len(items), 1)].mean()

    query = Query(3, limit=8)
    plain = await one(world.recommender(), query)
    diverse = await one(world.recommender(), replace(query, rules=Rules(mmr_lambda=0.1)))
    assert nearest(diverse) < nearest(plain)


async def test_an_item_of_a_slate_tells_how_it_got_its_place(world):
    plain = [row["movie_id"] for row in await one(world.recommender(), Query(3, limit=60))]
    rules = Rules(pins=(Pin(plain[-1], 2),), boosts=(Boost(9.0, item_ids=(plain[5],)),))
    rows = await one(world.recommender(), Query(3, limit=10, rules=rules, explain=True))
    first, second = rows[0]["explain"], rows[1]["explain"]
    assert (rows[0]["movie_id"], first["source"], first["rules"]) == (
        plain[5], "tower", ["boost +9"],
    )  # fmt: skip
    assert (first["places"]["ranked"], first["places"]["final"]) == (6, 1)
    assert first["scores"]["ranked"] == pytest.approx(rows[0]["score"], abs=1e-3)
    assert (rows[1]["movie_id"], second["source"], second["rules"]) == (plain[-1], "pin", ["pin"])
    assert second["places"]["ranked"] is None  # 20 candidates, and it is behind them
    nobody = await one(world.recommender(), Query("nobody", limit=1, explain=True))
    assert nobody[0]["explain"]["source"] == "popular"


async def test_a_named_item_tells_why_it_is_not_there(world, bundle):
    recommender = world.recommender()
    user = 3
    whole = [row["movie_id"] for row in await one(recommender, Query(user, limit=60))]
    watched = bundle.items.ids[bundle.history(user)[0]]
    await world.state.append(Event(user, whole[1], EventType.DISLIKE, 0))
    blocked = Rules(block_ids=(whole[2],))
    capped = Rules(max_per=(("genre", 1),))
    genres = {row["movie_id"]: row["genres"] for row in await one(recommender, Query(user))}

    async def reason(item, **query):
        (slate,) = await recommended(
            recommender, [Query(user, **({"limit": 3} | query), explain_item=item)]
        )
        return orjson.loads(slate.explained)

    assert (await reason(whole[0]))["reason"] == "in_slate"
    seen = await reason(watched)
    assert (seen["reason"], seen["exact_place"], seen["explain"]["source"]) == (
        "watched", None, None,
    )  # fmt: skip
    assert seen["exact_score"] is not None
    assert (await reason(whole[1]))["reason"] == "disliked"
    away = await reason(whole[2], rules=replace(blocked, mmr_lambda=0.5))
    assert (away["reason"], away["explain"]["rules"]) == ("blocked", [])
    assert (await reason(whole[3], exclude_ids=(whole[3],)))["reason"] == "excluded"
    none = await reason(whole[3], year_from=9000)
    assert (none["reason"], none["exact_place"], none["of_items"]) == ("filtered", None, 0)
    assert (await reason(999_999))["reason"] == "unknown_item"
    assert (await reason(whole[8]))["reason"] == "below_the_cut"
    far = await reason(whole[-1])
    assert far["reason"] == "not_retrieved"
    assert far["exact_place"] == far["of_items"] == len(whole) - 1
    assert far["explain"]["source"] is None
    assert (await reason(whole[8]))["explain"]["source"] == "tower"
    slate = [row["movie_id"] for row in await one(recommender, Query(user, limit=3, rules=capped))]
    full = next(
        item for item, kind in genres.items() if item not in slate and set(kind) & {
            g for i in slate for g in genres.get(i, [])
        } and item != whole[1]
    )  # fmt: skip
    assert (await reason(full, rules=capped))["reason"] in ("capped", "below_the_cut")


def test_a_request_adds_to_the_configured_rules_and_wins_where_both_speak():
    configured = Rules(block_ids=(1,), mmr_lambda=0.5, max_per=(("genre", 3),), pins=(Pin(7, 1),))
    asked = Rules(block_ids=(2,), max_per=(("genre", 1), ("year", 1)), pins=(Pin(8, 1),))
    both = merged(configured, asked)
    assert both.block_ids == (1, 2)
    assert both.mmr_lambda == 0.5
    assert dict(both.max_per) == {"genre": 1, "year": 1}
    assert both.pins == (Pin(8, 1),)
    assert merged(None, None) is None


def test_a_rules_file_gives_rules_and_sentences(tmp_path, bundle):
    file = tmp_path / "rules.yaml"
    file.write_text(
        "block: {genres: [Horror]}\n"
        "boost: [{add: 0.2, years: [2010, null]}]\n"
        "diversity: {max_per: {genre: 3}}\n"
        "why: {watched: 'You {verb} {title}, so {item}', popular: 'Everyone watches {item}'}\n"
    )
    book = read_rules(str(file))
    assert book.rules.block_genres == ("Horror",)
    assert book.rules.boosts == (Boost(0.2, year_from=2010),)
    assert book.rules.max_per == (("genre", 3),)
    assert book.sentences.popular == "Everyone watches {item}"
    assert book.sentences.looked_at == "Because you looked at {title}"
    render = RenderStage(bundle, book.sentences)
    (row,) = orjson.loads(render.slate(np.array([4], np.int32), np.ones(1, np.float32), None))
    assert row["why"] == {
        "text": f"Everyone watches {row['title']}", "because": None, "similarity": None,
    }  # fmt: skip
    assert read_rules("") == type(book)(None, Sentences())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("boots: []\n", "boots: unknown field"),
        ("boost: [{add: nan, genres: [x]}]", "boost.0.add: "),
        ("diversity: {max_per: {genre: -1}}", "diversity.max_per.genre: "),
        ("why: {looked_at: 'You {verb} it'}", "no placeholder {verb}; there are {title}, {item}"),
        ("why: {popular: 'Hi {user}'}", "no placeholder {user}; there are {item}"),
        ("why: {popular: 'Hi {item'}", "not a sentence"),
        ("pin: [1]", "pin.0: "),
        ("a: [", "line 1: "),
        ("- 1", "the file: "),
    ],
)
def test_a_mistake_in_a_rules_file_is_one_line_with_its_place(tmp_path, content, said):
    file = tmp_path / "rules.yaml"
    file.write_text(content)
    with pytest.raises(RulesError) as raised:
        read_rules(str(file))
    (line,) = str(raised.value).splitlines()
    assert line.startswith(f"{file}: ")
    assert said in line


IDLE = """
block: {item_ids: [10, 7], genres: [Nope]}
boost: [{add: 1, genres: [Drama]}, {add: 1, item_ids: [8]}]
diversity: {max_per: {mood: 1, genre: 2}}
pin: [{item_id: 9}, {item_id: 20}]
"""
WITHOUT_EFFECT = [
    "diversity.max_per: cannot count by 'mood'; there are ",
    "block.genres: unknown genre 'Nope'",
    "pin.0.item_id: movie 9 is not in the catalogue",
    "block.item_ids: movie 7 is not in the catalogue",
    "boost.1.item_ids: movie 8 is not in the catalogue",
]


def test_what_of_a_rules_file_has_no_effect_is_told_and_logged_once(tmp_path, bundle, monkeypatch):
    file = tmp_path / "rules.yaml"
    file.write_text(IDLE)
    book = read_rules(str(file))
    idle = RulesStage(bundle).without_effect(book.rules)
    assert len(idle) == len(WITHOUT_EFFECT)
    assert all(line.startswith(said) for line, said in zip(idle, WITHOUT_EFFECT, strict=True))
    logged = []
    monkeypatch.setattr(assembly._log, "warning", lambda *said, **more: logged.append(more))
    assembly._model(bundle, book)
    assert logged == [{"version": "1", "rules": "; ".join(idle)}]
    assembly._model(bundle, RuleBook(Rules(block_ids=(10,))))
    assembly._model(bundle, RuleBook())
    assert len(logged) == 1


def test_checking_a_file_against_a_store_warns_of_what_its_catalogue_lacks(tmp_path, bundle):
    root = typer.Typer()
    api_commands.register(root)
    file, store = tmp_path / "rules.yaml", tmp_path / "store"
    file.write_text(IDLE)

    def check(*options):
        return CliRunner().invoke(root, ["rules", "check", str(file), *options])

    assert (check().exit_code, check().stderr) == (0, "")
    missing = check("--store", str(store))
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert "no published version" in missing.stderr
    shutil.copytree(bundle.path, store / "bundles" / "1")
    (store / "production.json").write_text(
        '{"version": "1", "previous": [], "changed_at": "2026-01-01"}'
    )
    checked = check("--store", str(store))
    assert (checked.exit_code, checked.stdout) == (0, f"{file}: correct\n")
    lines = checked.stderr.splitlines()
    assert len(lines) == len(WITHOUT_EFFECT)
    for line, said in zip(lines, WITHOUT_EFFECT, strict=True):
        assert line.startswith(f"warning: {file}: {said}")
