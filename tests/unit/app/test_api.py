"""The HTTP API over the in-process service: shapes, feedback, and every kind of bad request."""

import asyncio
import re
import time
from contextlib import asynccontextmanager
from urllib.parse import quote

import httpx
import pytest

from app.api.routes import build_api
from app.domain import EventType
from app.errors import ModelNotReady, Overloaded
from app.settings import Settings
from app.windows import slot_of
from training.model.ranking import USER_INPUTS


@asynccontextmanager
async def _nothing(_app):
    yield


def _client(service):
    api = build_api(service, Settings(store="unused", max_body_bytes=20_000), _nothing)
    transport = httpx.ASGITransport(app=api, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


@pytest.fixture
async def client(world):
    async with _client(world.service()) as client:
        yield client


@pytest.fixture
def user(bundle):
    return int(bundle.user_ids[0])


async def test_recommend_answers_in_the_documented_shape(client, user):
    response = await client.post("/recommend", json={"user_id": user, "num_recommendations": 3})
    assert response.status_code == 200
    body = response.json()
    assert body["user_id"] == user
    assert set(body) == {
        "user_id", "recommendations", "strategy", "degraded", "request_id", "latency_ms",
        "model_version",
    }  # fmt: skip
    assert len(body["recommendations"]) == 3
    assert set(body["recommendations"][0]) == {
        "movie_id", "title", "genres", "year", "avg_rating", "score", "why",
    }  # fmt: skip
    assert response.headers["x-request-id"] == body["request_id"]


async def test_the_get_route_gives_the_same_slate(client, user):
    posted = (await client.post("/recommend", json={"user_id": user})).json()
    got = (await client.get(f"/api/v1/recommendations/{user}", params={"limit": 10})).json()
    assert got["recommendations"] == posted["recommendations"]


async def test_an_unknown_user_is_marked_popular(client):
    body = (await client.post("/recommend", json={"user_id": "nobody"})).json()
    assert body["strategy"] == "popular"
    assert body["user_id"] == "nobody"


async def test_a_request_id_of_the_caller_is_kept_and_an_odd_one_is_not(client):
    kept = await client.get("/health", headers={"X-Request-ID": "abc-1"})
    assert kept.headers["x-request-id"] == "abc-1"
    odd = await client.get("/health", headers={"X-Request-ID": "a b\t"})
    assert re.fullmatch(r"[0-9a-f]{32}", odd.headers["x-request-id"])


async def test_feedback_is_stored_and_the_next_slate_reflects_it(client, user, world):
    slate = (await client.post("/recommend", json={"user_id": user})).json()
    item = slate["recommendations"][0]["movie_id"]
    event = {"user_id": user, "item_id": item, "event_type": "watch"}
    response = await client.post("/feedback", json=event)
    assert response.status_code == 200
    assert response.json()["status"] == "stored"
    assert len(world.state.stream) == 1
    after = (await client.post("/recommend", json={"user_id": user})).json()
    assert item not in [row["movie_id"] for row in after["recommendations"]]
    history = (await client.get(f"/users/{user}/history")).json()["history"]
    assert (history[0]["movie_id"], history[0]["event_type"]) == (item, "watch")


async def test_feedback_that_cannot_be_stored_is_not_acknowledged(client, user, world, bundle):
    world.state.away = True
    event = {"user_id": user, "item_id": bundle.items.ids[0], "event_type": "watch"}
    response = await client.post("/feedback", json=event)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["error"]["code"] == "dependency_unavailable"


async def test_similar_items_exclude_the_item_itself(client, bundle):
    item = bundle.items.ids[7]
    body = (await client.get(f"/similar/{item}", params={"limit": 5})).json()
    assert body["item"]["movie_id"] == item
    scores = [row["score"] for row in body["similar"]]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    assert item not in [row["movie_id"] for row in body["similar"]]


@pytest.mark.parametrize("limit", [1, 30, 100])
async def test_similar_items_are_as_many_as_asked_with_falling_scores(client, bundle, limit):
    for item in bundle.items.ids[:5]:
        body = (await client.get(f"/similar/{item}", params={"limit": limit})).json()
        scores = [row["score"] for row in body["similar"]]
        assert len({row["movie_id"] for row in body["similar"]} - {item}) == min(limit, 59)
        assert scores == sorted(scores, reverse=True)
        first = bundle.neighbours[bundle.item_index(item), 0]
        assert body["similar"][0]["movie_id"] == bundle.items.ids[first]


async def test_popular_can_be_asked_by_genre(client, bundle):
    genre = bundle.manifest.genres[0]
    body = (await client.get("/popular", params={"limit": 5, "genre": genre})).json()
    assert body["items"]
    assert all(genre in row["genres"] for row in body["items"])


async def test_titles_are_found_by_their_words_in_any_order_and_case(client, bundle):
    title = bundle.items.titles[11]
    words = " ".join(reversed(title.upper().split()))
    body = (await client.get("/items", params={"q": words, "limit": 50})).json()
    assert title in [row["title"] for row in body["items"]]


async def test_info_names_the_entity_and_users_can_be_listed(client, bundle):
    info = (await client.get("/info")).json()
    assert (info["model_version"], info["id_field"]) == ("1", "movie_id")
    assert info["genres"] == bundle.manifest.genres
    users = (await client.get("/users", params={"limit": 5})).json()["users"]
    assert len(users) == 5


async def test_ready_says_what_is_away_and_stays_ready(client, world):
    world.state.away = True
    response = await client.get("/ready")
    assert response.status_code == 200
    assert "away" in response.json()["dependencies"]["user_state"]


async def test_metrics_count_requests_cache_and_version(client, user):
    await client.post("/recommend", json={"user_id": user})
    await client.post("/recommend", json={"user_id": user})
    text = (await client.get("/metrics")).text
    assert 'marquee_requests_total{route="/recommend",status="200"} 2.0' in text
    assert 'marquee_cache_lookups_total{result="hit"} 1.0' in text


async def test_the_page_and_its_modules_are_served_with_a_policy(client):
    page = await client.get("/")
    assert "text/html" in page.headers["content-type"]
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert (await client.get("/page/main.js")).status_code == 200


async def test_openapi_describes_every_route(client):
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {"/recommend", "/feedback", "/similar/{item_id}", "/popular", "/items"} <= set(paths)
    body = paths["/recommend"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["anyOf"][0] == {"$ref": "#/components/schemas/RecommendRequest"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "user_id"),
        ({"user_id": "a\nb"}, "user_id"),
        ({"user_id": None}, "user_id"),
        ({"user_id": True}, "user_id"),
        ({"user_id": 1.5}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "x" * 129}, "user_id"),
        ({"user_id": "."}, "user_id"),
        ({"user_id": 1, "exclude_ids": [".."]}, "exclude_ids.0"),
        ({"user_id": 2**63}, "user_id"),
        ({"user_id": 1, "num_recommendations": 0}, "num_recommendations"),
        ({"user_id": 1, "num_recommendations": -1}, "num_recommendations"),
        ({"user_id": 1, "num_recommendations": 10_001}, "num_recommendations"),
        ({"user_id": 1, "num_recommendations": "10"}, "num_recommendations"),
        ({"user_id": 1, "num_recommendatons": 10}, "num_recommendatons"),
        ({"user_id": 1, "filters": {"genre": ["x"]}}, "filters.genre"),
        ({"user_id": 1, "filters": {"genres": "Comedy"}}, "filters.genres"),
        ({"user_id": 1, "filters": {"years": ["x", 1990]}}, "filters.years.0"),
        ({"user_id": 1, "filters": {"min_rating": "good"}}, "filters.min_rating"),
        ({"user_id": 1, "exclude_watched": "yes"}, "exclude_watched"),
        ({"user_id": 1, "exclude_ids": [[]]}, "exclude_ids.0"),
        ([], "body"),
    ],
)
async def test_a_bad_request_names_its_field(client, body, field):
    response = await client.post("/recommend", json=body)
    assert response.status_code == 422
    assert response.json()["error"]["field"] == field
    assert "\n" not in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"filters": {"genres": ["Nope"]}}, "filters.genres"),
        ({"rules": {"block": {"genres": ["Nope"]}}}, "rules.block.genres"),
        (
            {"rules": {"boost": [{"add": 1}, {"add": 1, "genres": ["Nope"]}]}},
            "rules.boost.1.genres",
        ),
        ({"rules": {"diversity": {"max_per": {"mood": 1}}}}, "rules.diversity.max_per"),
        ({"rules": {"pin": [{"item_id": 10**9}]}}, "rules.pin.0.item_id"),
    ],
)
async def test_what_the_catalogue_does_not_have_is_a_404_that_names_its_field(client, asked, field):
    response = await client.post("/recommend", json={"user_id": 1} | asked)
    assert response.status_code == 404
    assert response.json()["error"]["field"] == field


async def test_a_body_that_is_not_json_is_said_to_be(client):
    response = await client.post("/recommend", content=b"user_id=1")
    assert response.status_code == 422
    assert "JSON" in response.json()["error"]["message"]


async def test_nan_is_not_a_rating(client):
    content = b'{"user_id": 1, "filters": {"min_rating": NaN}}'
    assert (await client.post("/recommend", content=content)).status_code == 422


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused(client, chunked):
    async def chunks():
        for _ in range(30):
            yield b" " * 1000

    content = chunks() if chunked else b" " * 30_000
    response = await client.post("/recommend", content=content)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "payload_too_large"


@pytest.mark.parametrize(
    ("event", "status", "field"),
    [
        ({"user_id": 1, "item_id": 999_999, "event_type": "watch"}, 404, "item_id"),
        ({"user_id": 1, "item_id": 1, "event_type": "stare"}, 422, "event_type"),
        ({"user_id": 1, "event_type": "watch"}, 422, "item_id"),
        ({"user_id": "..", "item_id": 10, "event_type": "watch"}, 422, "user_id"),
        ({"user_id": 1, "item_id": ".", "event_type": "watch"}, 422, "item_id"),
    ],
)
async def test_bad_feedback_names_its_field(client, event, status, field):
    response = await client.post("/feedback", json=event)
    assert response.status_code == status
    assert response.json()["error"]["field"] == field


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("/similar/999999", 404, "item_id"),
        ("/similar/1?limit=0", 422, "limit"),
        ("/api/v1/recommendations/1?limit=10001", 422, "limit"),
        ("/popular?limit=x", 422, "limit"),
        ("/popular?genre=No%20such", 404, "genre"),
        ("/popular?genre=No%20such&window=5m", 404, "genre"),
        ("/items", 422, "q"),
        ("/items?q=", 422, "q"),
        ("/items?q=a%00b", 422, "q"),
        ("/items?q=%ff", 422, "q"),
        ("/items?q=a&%ff=1", 422, "\ufffd"),
        ("/popular?genre=a%c3", 422, "genre"),
        ("/popular?foo=1", 422, "foo"),
        ("/popular?windw=5m", 422, "windw"),
        ("/popular?limit=5&limit=6", 422, "limit"),
        ("/info?version=1", 422, "version"),
        ("/users/1/history?offset=2", 422, "offset"),
        ("/api/v1/recommendations/1?genre=Comedy", 422, "genre"),
        ("/users/%2e/history", 422, "user_id"),
        ("/similar/%2e%2E", 422, "item_id"),
        ("/users/%ff/history", 422, "path"),
        ("/users/%ed%a0%80/history", 422, "path"),
        ("/similar/%c3%2f%a9", 422, "path"),
        ("/nowhere", 404, None),
    ],
)
async def test_a_bad_path_or_parameter_is_a_4xx(client, path, status, field):
    response = await client.get(path)
    assert response.status_code == status
    assert response.json()["error"].get("field") == field
    assert response.json()["request_id"]


async def test_an_unknown_parameter_is_told_which_there_are(client):
    unknown = (await client.get("/popular?windw=5m")).json()["error"]
    assert unknown["message"] == "'windw' is no parameter; this path has limit, genre, window"
    none = (await client.get("/users/1/features?limit=1")).json()["error"]
    assert none["message"] == "'limit' is no parameter; this path has none"
    twice = (await client.get("/items?q=a&limit=1&limit=2")).json()["error"]
    assert twice["message"] == "limit: given more than once"


async def test_a_list_may_be_given_several_times_and_probes_may_ask_anything(client, bundle):
    first, second = bundle.manifest.genres[:2]
    both = await client.get("/popular", params={"genre": [first, second], "limit": 60})
    assert both.status_code == 200
    assert any(second in row["genres"] for row in both.json()["items"])
    for path in ("/health", "/ready", "/metrics", "/", "/page/main.js", "/docs"):
        assert (await client.get(f"{path}?probe=1&probe=%ff")).status_code == 200


async def test_an_id_that_is_not_utf_8_is_nobodys(client, world):
    for path in ("/users/%ff", "/users/%ff/", "/users/1?dry_run=1"):
        assert (await client.delete(path)).status_code == 422
    assert world.state.erased == {}
    assert (await client.delete("/users/%ef%bf%bd")).json()["user_id"] == "\ufffd"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"user_id": 1, "limit": 3}, "limit: unknown field"),
        ({"user_id": 1.5}, "user_id: an id must be an integer or a text"),
    ],
)
async def test_a_message_has_the_services_own_words(client, body, message):
    assert (await client.post("/recommend", json=body)).json()["error"]["message"] == message


async def test_a_wrong_method_is_a_405_in_the_same_shape(client):
    response = await client.get("/recommend")
    assert response.status_code == 405
    assert response.json()["error"]["code"] == "method_not_allowed"


async def test_head_is_answered_as_get_is(client):
    response, as_get = await client.head("/health"), await client.get("/health")
    assert response.status_code == 200
    assert response.headers["content-length"] == as_get.headers["content-length"]
    assert (await client.head("/recommend")).status_code == 405


async def test_before_the_first_bundle_the_service_is_healthy_but_not_ready(world):
    service = world.service()

    def missing():
        raise ModelNotReady("no version is loaded")

    service._current = missing
    async with _client(service) as client:
        assert (await client.get("/health")).status_code == 200
        ready = await client.get("/ready")
    assert ready.status_code == 503
    assert ready.json()["error"]["code"] == "model_not_ready"


async def test_a_defect_is_one_line_to_the_client(world):
    class Defective:
        async def recommend(self, queries):
            raise ZeroDivisionError("secret")

    service = world.service()
    service._recommender = Defective()
    async with _client(service) as client:
        response = await client.post("/recommend", json={"user_id": 1})
    assert response.status_code == 500
    assert "secret" not in response.text


@pytest.mark.parametrize("path", ["/recommend", "/no-such-path"])
async def test_a_body_that_does_not_end_is_answered_408_when_its_time_is_up(world, path):
    settings = Settings(store="unused", body_timeout_ms=20)
    api = build_api(world.service(), settings, _nothing)
    parts = iter([{"type": "http.request", "body": b'{"user', "more_body": True}])
    sent = []

    async def receive():
        part = next(parts, None)
        return part or await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(),
        "headers": [], "query_string": b"", "root_path": "", "scheme": "http",
        "server": ("test", 80), "client": ("test", 1), "http_version": "1.1",
    }  # fmt: skip
    await api(scope, receive, send)
    assert sent[0]["status"] == (408 if path == "/recommend" else 404)
    if path == "/recommend":
        assert (b"connection", b"close") in sent[0]["headers"]


async def test_overload_is_429_with_the_time_to_come_back(world):
    service = world.service()

    async def overloaded(_query):
        raise Overloaded("more requests than can be answered in time", retry_after_s=3)

    service.recommend = overloaded
    async with _client(service) as client:
        response = await client.post("/recommend", json={"user_id": 1})
    assert (response.status_code, response.headers["retry-after"]) == (429, "3")
    assert response.json()["error"]["code"] == "overloaded"


async def test_a_deleted_user_gets_a_receipt_and_is_unknown(client, user):
    await client.post("/feedback", json={"user_id": user, "item_id": 10, "event_type": "click"})
    receipt = (await client.delete(f"/users/{user}")).json()
    assert (receipt["user_id"], receipt["removed"]["state"]) == (str(user), 1)
    assert receipt["model_version"] == "1"
    assert (await client.get(f"/users/{user}/history")).json()["history"] == []
    slate = (await client.post("/recommend", json={"user_id": user})).json()
    assert slate["strategy"] == "popular"
    # As the alert MarqueeErasureFailed has it.
    counted = 'marquee_requests_total{route="/users/{user_id}",status="200"} 1.0'
    assert counted in (await client.get("/metrics")).text


@pytest.mark.parametrize("name", ["a/b", "/a", "42/", "a%2Fb", "ü/b?", "1/history"])
async def test_a_user_whose_id_has_a_slash_is_known_and_erased_like_any_other(client, world, name):
    await client.post("/feedback", json={"user_id": name, "item_id": 10, "event_type": "click"})
    path = f"/users/{quote(name, safe='')}"
    for last in ("history", "features", "why/10"):
        answer = await client.get(f"{path}/{last}")
        assert (answer.status_code, answer.json()["user_id"]) == (200, name)
    slate = await client.get(path.replace("users", "api/v1/recommendations").replace("%2F", "%2f"))
    assert slate.json()["strategy"] == "personal"
    receipt = (await client.delete(path)).json()
    assert (receipt["user_id"], receipt["removed"]["state"]) == (name, 1)
    assert set(world.state.erased) == {name}
    assert 'route="/users/{user_id}/history"' in (await client.get("/metrics")).text


async def test_nobody_is_erased_by_a_plain_slash(client, world):
    for path in ("/users/1/", "/users/1/history", "/users/a/b", "/users/a%2Fb/"):
        assert (await client.delete(path)).status_code in (307, 404, 405)
    assert world.state.erased == {}


async def test_a_history_says_when_feedback_could_not_be_read(client, world, user):
    assert (await client.get(f"/users/{user}/history")).json()["degraded"] == []
    world.state.away = True
    past = (await client.get(f"/users/{user}/history")).json()
    assert past["degraded"] == ["user_state"]
    assert past["history"]


async def test_the_last_five_minutes_of_a_user_are_told(client, world, user):
    for item, kind in ((10, "click"), (20, "view")):
        body = {"user_id": user, "item_id": item, "event_type": kind}
        await client.post("/feedback", json=body)
    world.state.recent = 2
    known = (await client.get(f"/users/{user}/features")).json()
    assert (known["clicks"], known["views"], known["events"], known["window_s"]) == (1, 1, 2, 300)
    assert sum(known["genres"].values()) == pytest.approx(1, abs=0.01)


async def test_what_is_popular_now_is_what_gathers_events_now(client, world):
    assert (await client.get("/popular", params={"window": "5m"})).json()["items"] == []
    newest = slot_of(time.time_ns() // 1_000_000)
    world.counts.slots[newest] = {("30", EventType.CLICK): 2, ("20", EventType.VIEW): 5}
    await world.live.look()
    items = (await client.get("/popular", params={"window": "5m"})).json()["items"]
    assert [(row["movie_id"], row["score"]) for row in items] == [(20, 5.0), (30, 2.0)]
    assert items[0]["window"] == {"views": 5, "clicks": 0, "velocity": 5.0}
    assert (await client.get("/popular", params={"window": "1h"})).status_code == 422


async def test_counts_of_the_last_minutes_that_may_be_old_are_said_to_be(client, world):
    async def degraded(**params):
        return (await client.get("/popular", params=params)).json()["degraded"]

    assert await degraded(window="5m") == ["user_state"]  # nobody has looked yet
    await world.live.look()
    assert await degraded(window="5m") == []
    world.counts.away = True
    await world.live.look()
    assert await degraded(window="5m") == ["user_state"]
    assert await degraded() == []


async def test_features_of_whom_only_the_bundle_knows_are_the_bundles(client, bundle, user):
    inputs = (await client.get(f"/users/{user}/features")).json()["inputs"]
    expected = bundle.user_features[bundle.user_row(user)]
    assert [inputs[name] for name in USER_INPUTS] == pytest.approx(expected.tolist(), nan_ok=True)
    assert (await client.get("/users/nobody/features")).json()["inputs"] is None
    await client.delete(f"/users/{user}")
    assert (await client.get(f"/users/{user}/features")).json()["inputs"] is None


async def test_disliked_items_have_no_share_in_the_genres(client, world, bundle):
    liked, disliked = bundle.items.ids[0], bundle.items.ids[1]
    for item, kind in ((liked, "click"), (disliked, "view"), (disliked, "dislike")):
        body = {"user_id": "new", "item_id": item, "event_type": kind}
        await client.post("/feedback", json=body)
    world.state.recent = 3
    known = (await client.get("/users/new/features")).json()
    assert (known["clicks"], known["views"], known["events"]) == (1, 1, 3)
    assert set(known["genres"]) == set(bundle.items.genres[0])


async def test_features_without_the_state_are_the_bundles_and_say_so(client, world, user):
    whole = (await client.get(f"/users/{user}/features")).json()
    assert whole["degraded"] == []
    world.state.away = True
    known = (await client.get(f"/users/{user}/features")).json()
    assert known == whole | {"degraded": ["user_state"]}


async def test_nothing_of_an_erased_user_is_told_while_the_state_is_away(client, world, user):
    await client.delete(f"/users/{user}")
    await world.live.look()
    world.state.away = True
    assert (await client.get(f"/users/{user}/why/10")).json()["because"] == []
    assert (await client.get(f"/users/{user}/features")).json()["inputs"] is None
