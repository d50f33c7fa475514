"""The client and the service over a socket: every call, pages, keys and prose."""

import asyncio

import httpx
import orjson
import pytest

from app.adapters.openai_writer import OpenAIWriter
from app.api import schemas
from app.domain import Event, EventType
from app.errors import DependencyUnavailable
from app.prose import Prose
from marquee.client import AsyncClient, Client, Refused, item_id
from tests.live import service_over, serving


@pytest.fixture(scope="module")
def url(bundle):
    with serving(service_over(bundle), rate_limit_per_minute=0) as url:
        yield url


def test_every_call_of_the_client_gets_its_answer(url):
    with Client(url) as client:
        user = client.users(3)[0]
        slate = client.recommend(user, num_recommendations=3, filters={"years": (None, 2030)})
        schemas.RecommendResponse.model_validate(slate)
        first = item_id(slate["recommendations"][0])
        assert client.feedback(user, first, "watch")["status"] == "stored"
        later = client.recommend(user, num_recommendations=50)
        assert first not in map(item_id, later["recommendations"])
        assert item_id(client.history(user)[0]) == first
        schemas.WhyResponse.model_validate(client.why(user, first))
        schemas.SimilarResponse.model_validate(client.similar(first, 4))
        assert len(client.popular(4, ["Comedy"])) == 4
        client.popular(4, window="5m")
        assert client.features(user)["window_s"] == 300
        assert client.items(slate["recommendations"][0]["title"], 1)
        assert client.info()["model_version"] == client.ready()["model_version"]
        assert "marquee_requests_total" in client.metrics()
        with pytest.raises(Refused) as refused:
            client.similar("nothing")
        assert (refused.value.status, refused.value.field) == (404, "item_id")


async def test_pages_hold_every_item_once_and_in_the_order_of_the_whole_slate(url):
    with Client(url) as client:
        whole = client.recommend(7, num_recommendations=60, fresh=True)["recommendations"]
        rows = list(client.recommendations(7, num_recommendations=7))
    assert [item_id(row) for row in rows] == [item_id(row) for row in whole]
    assert len({item_id(row) for row in rows}) == len(rows) > 7
    async with AsyncClient(url) as client:
        pages = [page async for page in client.pages(7, num_recommendations=7)]
        again = [row async for row in client.recommendations(7, num_recommendations=20)]
    assert [row for page in pages for row in page["recommendations"]] == rows == again
    assert [len(page["recommendations"]) for page in pages[:-1]] == [7] * (len(pages) - 1)


async def test_the_async_client_shows_its_key(bundle, tmp_path):
    from app.keys import Scope, create_key

    file = tmp_path / "keys.json"
    key, _ = create_key(file, "reader", [Scope.RECOMMEND])
    with serving(service_over(bundle), api_keys=str(file)) as url:
        async with AsyncClient(url, api_key=key) as client:
            assert (await client.recommend(1))["recommendations"]
            with pytest.raises(Refused, match="403 forbidden"):
                await client.feedback(1, 10, "view")
        async with AsyncClient(url) as client:
            with pytest.raises(Refused, match="401 unauthorized"):
                await client.users()


def writer(answer, timeout_s=5.0):
    """A language model's endpoint; `answer` makes the response from the request's JSON."""

    async def respond(request):
        found = answer(orjson.loads(request.content))
        return await found if asyncio.iscoroutine(found) else found

    transport = httpx.MockTransport(respond)
    return OpenAIWriter(
        "http://llm/v1", model="m", api_key="k", timeout_s=timeout_s, transport=transport
    )


def said(text):
    return httpx.Response(200, json={"choices": [{"message": {"content": text}}]})


def told_by(world, answer, timeout_s=5.0):
    service = world.service()
    service._prose = Prose(writer(answer), world.metrics, timeout_s=timeout_s)
    return service


async def test_prose_is_written_from_the_items_and_nothing_of_the_user(world):
    asked = []

    def answer(request):
        asked.append(request)
        return said(" It is\nlike what\u202e you know.\x00 ")

    service = told_by(world, answer)
    account = await service.why(3, 100)
    assert (account.written_by, account.text) == ("model", "It is like what you know.")
    assert account.degraded == ()
    assert await service.why("3", 100) == account  # remembered
    assert len(asked) == 1
    facts = orjson.loads(asked[0]["messages"][1]["content"])
    most_alike = [row | {"done": "watched"} for row in account.because]
    assert facts == {"item": account.item, "most_alike": most_alike}
    assert 1 <= len(account.because) <= 3
    watched = {row["movie_id"] for row in (await service.history(3, 1000)).rows}
    assert {row["movie_id"] for row in account.because} <= watched
    assert asked[0]["model"] == "m"


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: httpx.Response(500),
        lambda _: httpx.Response(200, text="no JSON"),
        lambda _: httpx.Response(200, json={"choices": []}),
        lambda _: httpx.Response(200, json=[]),
        lambda _: said(None),
        lambda _: said(""),
        lambda _: said("word " * 500),
        lambda _: asyncio.sleep(30),
    ],
)
async def test_without_prose_the_template_stands_and_says_so(world, answer):
    service = told_by(world, answer, timeout_s=0.05)
    account = await service.why(3, 100)
    assert (account.written_by, account.degraded) == ("template", ("prose",))
    assert account.text.startswith("Because you ")


async def test_who_has_watched_nothing_gets_a_sentence_too(world):
    account = await world.service().why("nobody", 100)
    assert account.because == []
    assert account.text == f"Many people choose {world.model.bundle.items.names[9]}"


async def test_of_a_clicked_item_neither_the_template_nor_the_model_says_that_it_was_watched(world):
    asked = []

    def answer(request):
        asked.append(request)
        return said("You might like it.")

    clicked, alike = 50, world.model.bundle.neighbours[4, 0]
    item_id = world.model.bundle.items.ids[int(alike)]
    await world.state.append(Event("new", clicked, EventType.CLICK, 0))
    account = await world.service().why("new", item_id)
    assert account.text == f"Because you looked at {world.model.bundle.items.names[4]}"
    await told_by(world, answer).why("new", item_id)
    (row,) = orjson.loads(asked[0]["messages"][1]["content"])["most_alike"]
    assert (row["movie_id"], row["done"]) == (clicked, "looked at")


async def test_a_slow_model_gathers_no_crowd_and_no_slate_waits_for_it(world):
    service = told_by(world, lambda _: asyncio.sleep(30))
    waiting = [asyncio.create_task(service.why(3, 10 * n)) for n in range(1, 17)]
    await asyncio.sleep(0)
    while service._prose._writer._calls < 16:
        await asyncio.sleep(0)
    assert (await service.why(3, 200)).degraded == ("prose",)
    slate = await service.recommend(_query(3))
    assert slate.degraded == ()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert service._prose._writer._calls == 0


def _query(user):
    from app.domain import Query

    return Query(user)


async def test_a_model_that_is_not_there_is_a_dependency_that_is_away():
    def refuse(_):
        raise httpx.ConnectError("refused")

    with pytest.raises(DependencyUnavailable, match="prose: ConnectError: refused"):
        await writer(refuse).write("say", "{}")
