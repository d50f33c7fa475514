"""The layer in front of Serve's own: a refusal costs as little as can be."""

import re
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from app.api import front
from app.api.routes import build_api
from app.errors import Overloaded
from app.settings import Settings

MANIFEST = Path(__file__).parents[3] / "k8s" / "serve-rayservice.yaml"
UNWATCHED = (b"x-request-disconnect-disabled", b"?1")


@asynccontextmanager
async def _nothing(_app):
    yield


class Layers:
    """Stands for Serve's layers: notes what comes through and hands it on; adds a request id."""

    def __init__(self, api):
        self.api = api
        self.headers = []

    async def __call__(self, scope, receive, send):
        self.headers.append(scope["headers"])

        async def send_with_id(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", b"of-serve")]
            await send(message)

        await self.api(scope, receive, send_with_id)


@pytest.fixture
def served(world, monkeypatch):
    """The service, its API, the layers, and a client of a front before them."""
    monkeypatch.setattr(front, "_served", [])
    service = world.service()
    api = build_api(service, Settings(store="unused", access_log=False), _nothing)
    layers = Layers(api)

    def client_of(middlewares):
        (middleware,) = middlewares()
        app = middleware.cls(layers, *middleware.args, **middleware.kwargs)
        return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")

    return service, api, layers, client_of


def _full(read_cache):
    if not read_cache:
        raise Overloaded("more requests than can be answered in time", retry_after_s=3)


async def test_what_would_come_too_late_is_refused_unread_and_past_serves_layers(served):
    _, api, layers, client_of = served
    api._check_load = _full
    front.stand_before(api, _full)
    fresh = {"Cache-Control": "no-cache"}

    async def body():
        raise AssertionError("the body was read")
        yield b""

    async with client_of(front.before_serve) as client:
        refused = await client.post("/recommend", content=body(), headers=fresh)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")
        assert refused.json()["error"]["code"] == "overloaded"
        assert refused.headers["x-request-id"] == refused.json()["request_id"]
        assert layers.headers == []
        assert (await client.post("/recommend", json={"user_id": 1})).status_code == 200
        assert (await client.get("/health", headers=fresh)).status_code == 200
        assert len(layers.headers) == 2
        counted = (await client.get("/metrics")).text
    assert 'marquee_requests_total{route="/recommend",status="429"} 1.0' in counted


async def test_serve_does_not_watch_whether_a_caller_goes_away(served):
    service, api, layers, client_of = served
    front.stand_before(api, service.check_load)
    async with client_of(front.before_serve) as client:
        assert (await client.post("/recommend", json={"user_id": 1})).status_code == 200
    assert UNWATCHED in layers.headers[0]


async def test_an_answer_has_one_request_id_the_apis_where_it_answered(served):
    service, api, layers, client_of = served
    front.stand_before(api, service.check_load)
    async with client_of(front.before_serve) as client:
        ours = await client.get("/health", headers={"X-Request-ID": "of-the-caller"})
        assert ours.headers.get_list("x-request-id") == ["of-the-caller"]

        async def refuse(scope, receive, send):
            await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        layers.api = refuse
        serves_own = await client.get("/health")
    assert serves_own.headers.get_list("x-request-id") == ["of-serve"]


async def test_in_place_of_serve_only_serves_own_paths_pass_its_layers(served):
    service, api, layers, client_of = served
    front.stand_before(api, service.check_load)
    async with client_of(front.in_place_of_serve) as client:
        assert (await client.post("/recommend", json={"user_id": 1})).status_code == 200
        assert (await client.get("/health")).status_code == 200
        assert layers.headers == []
        await client.get("/-/healthz")
    assert len(layers.headers) == 1


async def test_a_process_that_serves_no_api_of_ours_is_left_as_it_is(served):
    *_, layers, client_of = served
    for middlewares in (front.before_serve, front.in_place_of_serve):
        async with client_of(middlewares) as client:
            assert (await client.post("/recommend", json={"user_id": 1})).status_code == 200
    assert len(layers.headers) == 2
    assert not any(UNWATCHED in headers for headers in layers.headers)


def test_the_chart_whose_replicas_scale_by_serves_count_of_requests_leaves_it_its_layers():
    named = set(re.findall(r"app\.api\.front:(\w+)", MANIFEST.read_text("utf-8")))
    assert named == {front.before_serve.__name__}
    assert f"app.api.front:{front.in_place_of_serve.__name__}" == front.IN_PLACE_OF_SERVE
