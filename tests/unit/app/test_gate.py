"""Keys, scopes, the rate limit, the audit log, CORS: who may ask what, and how often."""

import asyncio
import json
from contextlib import asynccontextmanager

import httpx
import pytest
from typer import Typer
from typer.testing import CliRunner

from app import api_commands
from app.api.json_depth import check_depth
from app.api.routes import build_api
from app.errors import DependencyUnavailable, InvalidRequest
from app.keys import KeysError, Scope, create_key, read_keys, revoke_key
from app.limits import RateLimiter
from app.rules_json import read_rules
from app.settings import Settings

PREFLIGHT = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}


@asynccontextmanager
async def _nothing(_app):
    yield


def client_of(world, limiter=None, **settings):
    api = build_api(world.service(), Settings(store="unused", **settings), _nothing, limiter)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://test")


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def keys(tmp_path):
    """A file, and a key for each scope."""
    file = tmp_path / "keys.json"
    return file, {scope: create_key(file, scope.value, [scope])[0] for scope in Scope}


async def test_with_keys_on_each_scope_opens_its_own_doors(world, keys):
    file, key = keys
    slate, event = {"user_id": 1}, {"user_id": 1, "item_id": 10, "event_type": "view"}
    async with client_of(world, api_keys=str(file)) as client:
        for path in ("/", "/page/main.js", "/health", "/ready", "/metrics", "/docs"):
            assert (await client.get(path)).status_code == 200
        for headers in ({}, bearer("mq_x_y"), bearer(""), {"Authorization": "Basic eA=="}):
            refused = await client.post("/recommend", json=slate, headers=headers)
            assert refused.status_code == 401
            assert refused.json()["error"]["code"] == "unauthorized"
            assert refused.headers["www-authenticate"].startswith("Bearer")
        asked = {
            scope: [
                (await client.post("/recommend", json=slate, headers=bearer(key[scope]))),
                (await client.get("/popular", headers={"X-API-Key": key[scope]})),
                (await client.post("/feedback", json=event, headers=bearer(key[scope]))),
                (await client.delete("/anything", headers=bearer(key[scope]))),
            ]
            for scope in Scope
        }
    statuses = {scope: [answer.status_code for answer in got] for scope, got in asked.items()}
    assert statuses[Scope.RECOMMEND] == [200, 200, 403, 403]
    assert statuses[Scope.FEEDBACK] == [403, 403, 200, 403]
    assert statuses[Scope.ADMIN][:3] == [403, 403, 403]
    assert statuses[Scope.ADMIN][3] == 404  # past the gate, and there is nothing


async def test_a_key_made_or_revoked_while_the_service_runs_counts(world, keys):
    file, key = keys
    async with client_of(world, api_keys=str(file)) as client:
        gate = client._transport.app._gate
        fresh, entry = create_key(file, "later", [Scope.RECOMMEND])
        revoke_key(file, key[Scope.RECOMMEND].split("_")[1])
        await gate.reload()
        assert (await client.get("/popular", headers=bearer(fresh))).status_code == 200
        old = await client.get("/popular", headers=bearer(key[Scope.RECOMMEND]))
        assert old.status_code == 401
        file.write_text("{")
        await gate.reload()
        assert (await client.get("/popular", headers=bearer(fresh))).status_code == 200
    assert entry.id in gate._ring.keys


def test_no_secret_is_on_disk_and_the_file_is_the_owners(keys):
    file, key = keys
    text = file.read_text()
    assert not any(secret.split("_", 2)[2] in text for secret in key.values())
    assert file.stat().st_mode & 0o077 == 0


def test_keys_and_rules_may_come_as_texts(keys):
    file, key = keys
    assert read_keys(file.read_text()).find(key[Scope.ADMIN]).name == "admin"
    assert read_rules('{"block": {"item_ids": [1]}}').rules.block_ids == (1,)
    with pytest.raises(KeysError, match="^MARQUEE_API_KEYS: "):
        read_keys("{}")


@pytest.mark.parametrize("content", [None, "{", '{"format": 2, "keys": []}', '{"format": 1}', "[]"])
def test_a_file_of_keys_that_cannot_be_used_is_one_line(tmp_path, content):
    file = tmp_path / "keys.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(KeysError) as raised:
        read_keys(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)


def test_keys_are_made_listed_and_revoked_by_command(tmp_path):
    root = Typer()
    api_commands.register(root)
    file = str(tmp_path / "sub" / "keys.json")

    def run(*arguments):
        return CliRunner().invoke(root, ["keys", *arguments, "--file", file])

    made = run("create", "page", "--scope", "recommend", "--scope", "feedback", "--json")
    key = json.loads(made.stdout)
    assert key["scopes"] == ["feedback", "recommend"]
    assert read_keys(file).find(key["key"]).name == "page"
    assert run("revoke", key["id"]).exit_code == 0
    assert read_keys(file).find(key["key"]) is None
    (listed,) = json.loads(run("list", "--json").stdout)["keys"]
    assert (listed["id"], listed["name"]) == (key["id"], "page")
    assert listed["revoked_at"]
    assert "page" in run("list").stdout
    assert run("revoke", "nothere").exit_code == 2
    assert run("create", "x", "--scope", "root").exit_code == 2
    broken = tmp_path / "rules.yaml"
    broken.write_text("boots: 1\npin: 2\n")
    checked = CliRunner().invoke(root, ["rules", "check", str(broken)])
    assert (checked.exit_code, checked.stderr.count("error: ")) == (2, 2)
    broken.write_text("pin: []\n")
    assert CliRunner().invoke(root, ["rules", "check", str(broken)]).exit_code == 0


async def test_admin_calls_leave_a_line_allowed_or_refused(world, keys, tmp_path):
    file, key = keys
    audit = tmp_path / "audit.jsonl"
    async with client_of(world, api_keys=str(file), audit_log=str(audit)) as client:
        await client.delete("/users/a%2Fb", headers=bearer(key[Scope.ADMIN]))
        await client.delete("/users/1", headers=bearer(key[Scope.RECOMMEND]))
        await client.delete("/users/1")
        await client.post("/recommend", json={"user_id": 1}, headers=bearer(key[Scope.RECOMMEND]))
    allowed, forbidden, unknown = map(json.loads, audit.read_text().splitlines())
    assert allowed["key"] == key[Scope.ADMIN].split("_")[1]
    assert allowed["path"] == "/users/a/b"
    assert allowed["request_id"]
    assert (forbidden["status"], unknown["status"], unknown["key"]) == (403, 401, None)


async def test_the_request_after_the_last_is_a_429_that_says_when(world):
    clock = lambda: 6_000_030.0  # noqa: E731  half a minute in
    async with client_of(world, RateLimiter(None, clock), rate_limit_per_minute=3) as client:
        for left in (2, 1, 0):
            answer = await client.post("/recommend", json={"user_id": 1})
            assert answer.status_code == 200
            assert answer.headers["ratelimit-remaining"] == str(left)
        refused = await client.get("/api/v1/recommendations/1")
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "too_many_requests"
        assert refused.headers["ratelimit-limit"] == "3"
        assert refused.headers["ratelimit-reset"] == "90"  # they weigh until the next minute ends
        # A third of the next minute must pass before the three weigh less than two.
        assert refused.headers["retry-after"] == "50"
        assert (await client.post("/recommend", json={"user_id": 2})).status_code == 200
        assert (await client.get("/popular")).status_code == 200


async def test_a_key_has_a_limit_of_its_own(world, keys):
    file, key = keys
    limiter = RateLimiter(None, lambda: 6_000_030.0)
    headers = bearer(key[Scope.RECOMMEND])
    async with client_of(world, limiter, rate_limit_per_minute=2, api_keys=str(file)) as client:
        statuses = [(await client.get("/popular", headers=headers)).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]


async def test_without_a_limit_there_are_no_headers_of_it(world):
    async with client_of(world, rate_limit_per_minute=0) as client:
        answers = [await client.post("/recommend", json={"user_id": 1}) for _ in range(150)]
    assert {answer.status_code for answer in answers} == {200}
    assert "ratelimit-limit" not in answers[0].headers


class Clock:
    def __init__(self):
        self.now = 6_000_000.0

    def __call__(self):
        return self.now


def test_waiting_as_long_as_told_is_enough():
    clock = Clock()
    limiter = RateLimiter(None, clock)
    for offset in range(0, 400, 7):
        clock.now = 6_000_000.0 + offset
        while (allowance := limiter.take("u", 5)).is_allowed:
            pass
        clock.now += allowance.retry_after_s
        assert limiter.take("u", 5).is_allowed


def test_after_the_reset_everything_is_back_and_never_before_one_more_fits():
    for offset in range(0, 400, 7):
        clock = Clock()
        limiter = RateLimiter(None, clock)
        clock.now += offset
        while (allowance := limiter.take("u", 20)).is_allowed:
            clock.now += 0.3
        assert allowance.reset_s >= allowance.retry_after_s
        clock.now += allowance.reset_s
        assert limiter.take("u", 20).remaining == 19


def test_what_only_the_minute_before_has_is_back_when_this_one_ends():
    clock = Clock()
    limiter = RateLimiter(None, clock)
    while limiter.take("u", 20).is_allowed:
        pass
    clock.now += 60.5
    refused = limiter.take("u", 20)
    assert (refused.is_allowed, refused.retry_after_s, refused.reset_s) == (False, 3, 60)


class SharedCounts:
    """The RateCounts port in a dictionary; `away = True` makes it fail."""

    def __init__(self):
        self.sums = {}
        self.away = False

    async def add(self, minute, counts):
        if self.away:
            raise DependencyUnavailable("away")
        for name, n in counts.items():
            self.sums[minute, name] = self.sums.get((minute, name), 0) + n
        return [(self.sums.get((minute - 1, n), 0), self.sums[minute, n]) for n in counts]


async def test_replicas_share_their_counts():
    clock, counts = Clock(), SharedCounts()
    one, other = RateLimiter(counts, clock), RateLimiter(counts, clock)
    for _ in range(6):
        assert one.take("u", 10).is_allowed
    assert other.take("u", 10).is_allowed  # not told yet
    await one._sync_now()
    await other._sync_now()
    assert [other.take("u", 10).is_allowed for _ in range(4)] == [True, True, True, False]


async def test_with_redis_away_a_replica_counts_alone_and_nobody_waits():
    clock, counts = Clock(), SharedCounts()
    counts.away = True
    limiter = RateLimiter(counts, clock)
    assert [limiter.take("u", 2).is_allowed for _ in range(3)] == [True, True, False]
    limiter._sync.cancel()
    await asyncio.gather(limiter._sync, return_exceptions=True)


def test_names_without_end_do_not_take_memory_without_end(monkeypatch):
    monkeypatch.setattr("app.limits._MAX_NAMES", 10)
    clock = Clock()
    limiter = RateLimiter(None, clock)
    assert all(limiter.take(str(n), 1).is_allowed for n in range(50))
    assert len(limiter._of) == 10
    clock.now += 121
    limiter.take("new", 1)
    assert len(limiter._of) == 1


async def test_another_origin_may_call_only_when_it_is_named(world):
    async with client_of(world) as client:
        answer = await client.get("/popular", headers={"Origin": "https://shop.example"})
        assert "access-control-allow-origin" not in answer.headers
        assert (await client.options("/recommend", headers=PREFLIGHT)).status_code == 405
    async with client_of(world, cors_origins="https://shop.example") as client:
        preflight = await client.options("/recommend", headers=PREFLIGHT)
        assert preflight.headers["access-control-allow-origin"] == "https://shop.example"
        assert "X-Request-ID" in preflight.headers["access-control-allow-headers"]
        other = PREFLIGHT | {"Origin": "https://evil.example"}
        assert (await client.options("/recommend", headers=other)).status_code == 400


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/feedback"), ("POST", "/recommend"), ("DELETE", "/users/1")]
)
async def test_a_page_of_another_origin_does_not_write(world, site, method, path):
    foreign = {"Origin": "https://shop.example", "Sec-Fetch-Site": site}
    plain = {"Content-Type": "text/plain"}  # which needs no preflight
    body = json.dumps({"user_id": 1, "item_id": 10, "event_type": "view"})
    if path == "/recommend":
        body = '{"user_id": 1}'

    async def status(client, headers):
        answer = await client.request(method, path, content=body, headers=plain | headers)
        return answer.status_code

    async with client_of(world) as client:
        answer = await client.request(method, path, content=body, headers=plain | foreign)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
        assert "MARQUEE_CORS_ORIGINS" in answer.json()["error"]["message"]
        assert (world.state.stream, world.state.erased) == ([], {})
        assert await status(client, {"Sec-Fetch-Site": site}) == 403
        assert await status(client, {"Origin": "https://shop.example"}) == 200  # no browser
        for own in ("same-origin", "none"):
            assert await status(client, {"Sec-Fetch-Site": own}) == 200
        assert (await client.get("/popular", headers=foreign)).status_code == 200
    for named, expected in (("https://shop.example", 200), ("https://b.example", 403), ("*", 200)):
        async with client_of(world, cors_origins=f"https://a.example, {named}") as client:
            assert await status(client, foreign) == expected


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (b"[[[1]]]", True),
        (b"[[[[1]]]]", False),
        (b'{"a": "[[[[[[\\"[[["}', True),
        (b'[{"a": [{}]}]', False),
        (b"[][][][]{}{}", True),
        (b'"[[[[', True),
    ],
)
def test_depth_is_counted_outside_of_texts(text, fits):
    if fits:
        check_depth(text, 3)
    else:
        with pytest.raises(InvalidRequest):
            check_depth(text, 3)


async def test_a_body_nested_deeply_is_refused_before_it_is_parsed(world):
    async with client_of(world) as client:
        body = b'{"user_id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        answer = await client.post("/recommend", content=body)
    assert answer.status_code == 422
    assert "nested deeper than 32" in answer.json()["error"]["message"]
