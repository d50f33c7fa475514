"""The Python client against made-up answers: what goes again, what does not, and what is said."""

import json
import re
from typing import get_type_hints

import httpx
import numpy as np
import pytest

from app.api.routes import openapi_document
from marquee import answers, calls, retry
from marquee import client as client_module
from marquee.client import AsyncClient, Client, MarqueeError, Refused, Retry, Unreachable

SLATE = {"user_id": 1, "recommendations": [], "next_cursor": None}
BUSY = {"error": {"code": "overloaded", "message": "too much"}, "request_id": "abc"}


class Script(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers with each step in turn: a status, (status, headers, body), or an exception."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.requests = []

    def handle_request(self, request):
        self.requests.append(request)
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        status, headers, body = step if isinstance(step, tuple) else (step, {}, BUSY)
        if isinstance(body, str):
            return httpx.Response(status, headers=headers, text=body)
        return httpx.Response(status, headers=headers, json=body)

    async def handle_async_request(self, request):
        return self.handle_request(request)


@pytest.fixture
def waits(monkeypatch):
    """The waits between tries, which take no time."""
    seen = []

    async def wait(seconds):
        seen.append(seconds)

    monkeypatch.setattr(client_module.time, "sleep", seen.append)
    monkeypatch.setattr(client_module.asyncio, "sleep", wait)
    return seen


def over(*steps, **options):
    script = Script(*steps)
    return script, Client("http://service", transport=script, **options)


OK = (200, {}, SLATE)
PROXY = (503, {"content-type": "text/html"}, "<h1>no server</h1>")
NO_ROUTE_YET = (404, {"content-type": "text/plain"}, "Path '/recommend' not found.")


@pytest.mark.parametrize(
    "met", [429, 502, 503, 504, NO_ROUTE_YET, httpx.ConnectError("refused"),
            httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut off")],
)  # fmt: skip
async def test_a_slate_is_asked_for_again_until_it_comes(waits, met):
    script, client = over(met, OK)
    assert client.recommend(1) == SLATE
    again = Script(met, OK)
    async with AsyncClient("http://service", transport=again) as other:
        assert await other.recommend(1) == SLATE
    for requests in (script.requests, again.requests):
        first, second = requests
        assert first.headers["x-request-id"] == second.headers["x-request-id"]
        assert first.content == second.content
    assert len(waits) == 2


@pytest.mark.parametrize("met", [httpx.ConnectError("refused"), 429, 503, NO_ROUTE_YET])
def test_feedback_goes_again_when_it_was_not_stored(waits, met):
    script, client = over(met, (200, {}, {"status": "stored"}))
    assert client.feedback(1, 2, "watch")["status"] == "stored"
    assert len(script.requests) == 2


@pytest.mark.parametrize(
    "met", [httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut off"), 502, 504, PROXY]
)
def test_feedback_that_may_have_been_stored_is_not_sent_twice(waits, met):
    script, client = over(met)
    with pytest.raises(MarqueeError):
        client.feedback(1, 2, "watch")
    assert len(script.requests) == 1


def test_waits_grow_are_drawn_at_random_and_end(waits, monkeypatch):
    monkeypatch.setattr(retry.random, "uniform", lambda low, high: (low + high) / 2)
    script, client = over(*[503] * 4, retry=Retry(attempts=4, base_s=0.2, max_wait_s=0.3))
    with pytest.raises(Refused, match="503 overloaded: too much") as refused:
        client.recommend(1)
    assert waits == pytest.approx([0.1, 0.15, 0.15])
    assert refused.value.request_id == "abc"


def test_the_wait_is_at_least_what_the_service_asks_for(waits):
    _, client = over((429, {"retry-after": "2"}, BUSY), OK)
    client.recommend(1)
    assert 2 <= waits[0] <= 2.1


def test_a_wait_that_is_too_long_is_the_callers_to_decide_on(waits):
    _, client = over((429, {"retry-after": "40"}, BUSY))
    with pytest.raises(Refused):
        client.recommend(1)
    assert waits == []


def test_a_mistake_is_said_once_with_its_field(waits):
    problem = {"code": "invalid_request", "message": "too many", "field": "num_recommendations"}
    _, client = over((422, {}, {"error": problem, "request_id": "r"}))
    with pytest.raises(Refused) as refused:
        client.recommend(1, num_recommendations=0)
    assert (refused.value.status, refused.value.field) == (422, "num_recommendations")


def test_a_proxys_page_is_a_refusal_without_words(waits):
    _, client = over(*[PROXY] * 4)
    with pytest.raises(Refused, match="503 unknown"):
        client.popular()


def test_no_service_at_all_is_one_line(waits):
    _, client = over(*[httpx.ConnectError("refused")] * 4)
    with pytest.raises(Unreachable, match="no answer after 4 tries: refused"):
        client.ready()


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000", "ftp://host", "http://a:b", "file:///x", "http://[bad", "http://",
     "http://a:99999"],
)  # fmt: skip
def test_an_address_that_is_none_is_said_to_be(url):
    with pytest.raises(ValueError, match="is no address"):
        Client(url)


@pytest.mark.parametrize("api_key", ["k\u00fc", "a\nb"])
def test_a_key_that_no_header_can_carry_is_said_to_be(api_key):
    with pytest.raises(ValueError, match="^api_key "):
        Client("http://service", api_key=api_key)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda c: c.recommend(float("nan")), "user_id must be an integer or a text, not float"),
        (lambda c: c.recommend(object()), "user_id must be an integer or a text, not object"),
        (lambda c: c.recommend(True), "user_id must be an integer or a text, not bool"),
        (lambda c: c.recommend("\ud800"), "user_id cannot be sent: "),
        (lambda c: c.history("\ud800"), "user_id cannot be sent: "),
        (lambda c: c.erase(""), "user_id must not be ''"),
        (lambda c: c.erase(".."), "user_id must not be '..'"),
        (lambda c: c.similar("."), "item_id must not be '.'"),
        (lambda c: c.why(1, None), "item_id must be an integer or a text, not NoneType"),
        (lambda c: c.feedback(1, "..", "view"), "item_id must not be '..'"),
        (lambda c: c.feedback(1, 2, b"view"), "event_type cannot be sent: "),
        (lambda c: c.recommend(1, filters={"min_rating": float("inf")}), "filters cannot be sent"),
        (lambda c: c.recommend(1, exclude_ids=[object()]), "exclude_ids cannot be sent: "),
        (lambda c: c.items("\ud800"), "q cannot be sent: "),
        (lambda c: c.items("q" * 70_000), "an argument cannot be sent: URL"),
        (lambda c: c.popular(limit=object()), "limit cannot be sent: "),
        (lambda c: next(c.pages("")), "user_id must not be ''"),
    ],
)
def test_a_wrong_argument_is_a_value_error_that_names_it(ask, said):
    script, client = over()
    with pytest.raises(ValueError) as raised:
        ask(client)
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)
    assert script.requests == []


def test_an_integer_of_numpy_is_an_id():
    script, client = over(OK, (200, {}, {"history": []}))
    client.recommend(np.int64(7))
    client.history(np.int64(7))
    slate, history = script.requests
    assert json.loads(slate.content) == {"user_id": 7}
    assert history.url.path == "/users/7/history"


@pytest.mark.parametrize("status", [301, 307, 308])
def test_a_redirect_is_no_answer(status):
    _, client = over((status, {"location": "/elsewhere"}, ""))
    with pytest.raises(Refused, match=f"{status} unknown: HTTP {status}"):
        client.erase(1)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {"content-type": "text/html"}, "<h1>log in</h1>"), "HTTP 200 with text/html: not"),
        ((200, {}, []), "HTTP 200 with application/json: not"),
        ((200, {}, {"error": "no"}), "HTTP 200 with application/json: not"),
        ((204, {}, ""), "HTTP 204 with "),
    ],
)
def test_an_answer_that_is_not_the_services_is_said_to_be(answer, said):
    _, client = over(answer)
    with pytest.raises(Unreachable, match=said):
        client.history(1)


def test_an_answer_that_cannot_be_unpacked_is_asked_for_again(waits):
    script, client = over(httpx.DecodingError("broken gzip"), OK)
    assert client.recommend(1) == SLATE
    assert len(script.requests) == 2


def test_what_is_said_reaches_the_service_as_it_was_said(waits):
    script, client = over(OK, (200, {}, {"items": []}), (200, {}, {"history": []}), api_key="mq_k")
    client.recommend("a", fresh=True, filters={"genres": ["X"]}, exclude_watched=False)
    client.popular(3, ["A", "B"])
    client.history("a/b?", 2)
    slate, popular, history = script.requests
    assert json.loads(slate.content) == {
        "user_id": "a", "filters": {"genres": ["X"]}, "exclude_watched": False
    }  # fmt: skip
    assert slate.headers["cache-control"] == "no-cache"
    assert slate.headers["authorization"] == "Bearer mq_k"
    assert popular.url.query == b"limit=3&genre=A&genre=B"
    assert history.url.raw_path == b"/users/a%2Fb%3F/history?limit=2"


@pytest.mark.parametrize(
    ("schema", "type_"),
    [
        ("Item", answers.Item),
        ("ScoredItem", answers.ScoredItem),
        ("ItemWindow", answers.ItemWindow),
        ("PopularItem", answers.PopularItem),
        ("HistoryItem", answers.HistoryItem),
        ("Because", answers.Because),
        ("Why", answers.Why),
        ("Recommendation", answers.Recommendation),
        ("RecommendResponse", answers.Slate),
        ("FeedbackResponse", answers.Stored),
        ("SimilarResponse", answers.Similar),
        ("WhyResponse", answers.Told),
        ("UserFeatures", answers.Features),
        ("ErasureReceipt", answers.Receipt),
        ("Filters", answers.Filters),
    ],
)
def test_the_clients_types_are_the_documents(schema, type_):
    documented = openapi_document()["components"]["schemas"][schema]
    assert set(get_type_hints(type_)) == set(documented["properties"])


def test_a_request_may_say_all_that_the_document_allows():
    documented = openapi_document()["components"]["schemas"]["RecommendRequest"]["properties"]
    said = set(get_type_hints(answers.SlateOptions)) | {"user_id", "paginate"}
    assert said == set(documented)


def test_every_operation_of_the_document_has_a_call():
    made = [
        calls.recommend(1, {}), calls.feedback(1, 2, "view"), calls.why(1, 2), calls.similar(1, 1),
        calls.popular(1, [], None), calls.items("q", 1), calls.history(1, 1), calls.features(1),
        calls.erase(1), calls.users(1), calls.metrics(), calls.plain("/info"),
        calls.plain("/ready"), calls.plain("/health"),
    ]  # fmt: skip
    called = {(call.method.lower(), re.sub(r"/\d(?=/|$)", "/{}", call.path)) for call in made}
    documented = {
        (method, re.sub(r"{\w+}", "{}", path))
        for path, operations in openapi_document()["paths"].items()
        for method in operations
    }
    # The GET of a slate is the POST's for those who have no client.
    assert called == documented - {("get", "/api/v1/recommendations/{}")}


def test_both_clients_offer_the_same():
    def methods(kind):
        return {name for name in vars(kind) if not name.startswith("_")}

    assert methods(Client) == methods(AsyncClient)
