"""The whole service as a user runs it: HAProxy, Serve, Valkey, Qdrant Edge, over HTTP."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner

from app import erasure_commands, event_commands
from app.free_ports import free_port
from bench.faults.service import command_line
from tests.bundles import tiny_bundle

pytestmark = pytest.mark.integration


def _store(path):
    bundles = path / "bundles"
    bundles.mkdir(parents=True)
    tiny_bundle(bundles / "1", version="1")
    tiny_bundle(bundles / "2", version="2", seed=1)
    _promote(path, "1")
    return path


def _promote(store, version):
    pointer = store / "production.json"
    aside = pointer.with_suffix(".tmp")
    aside.write_text(f'{{"version": "{version}", "previous": [], "changed_at": "2026-01-01"}}')
    aside.rename(pointer)


def _serve(*arguments, **environment):
    command = [str(Path(sys.executable).parent / "marquee"), "serve", *map(str, arguments)]
    return subprocess.Popen(
        command, env=os.environ | environment, text=True, stderr=subprocess.PIPE
    )


def _children(pid):
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    parents = {int(p): int(q) for p, q in (line.split() for line in listed.splitlines())}
    found = {pid}
    while grown := {p for p, q in parents.items() if q in found} - found:
        found |= grown
    return found - {pid}


def _alive(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return status != "Z"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    path = tmp_path_factory.mktemp("serve")
    store = _store(path / "store")
    port = free_port()
    process = _serve(
        "--store", store, "--port", port, "--state-dir", path / "state",
        MARQUEE_POLL_S="0.2", MARQUEE_BODY_TIMEOUT_MS="1000",
        MARQUEE_EVENT_LOG=str(path / "log"),
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "the service did not come up"
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                break
        except httpx.TransportError:
            time.sleep(0.2)
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client, store, process
    children = _children(process.pid)
    assert children
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0, process.stderr.read()
    deadline = time.monotonic() + 20
    while (left := [pid for pid in children if _alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, "processes outlived the service"


def test_a_slate_feedback_and_another_slate(service):
    client, _, _ = service
    user = client.get("/users").json()["users"][0]
    before = client.post("/recommend", json={"user_id": user}).json()
    assert before["strategy"] == "personal"
    assert before["degraded"] == []
    item = before["recommendations"][0]["movie_id"]
    event = {"user_id": user, "item_id": item, "event_type": "watch"}
    assert client.post("/feedback", json=event).status_code == 200
    after = client.post("/recommend", json={"user_id": user}).json()
    assert item not in [row["movie_id"] for row in after["recommendations"]]


def test_feedback_is_in_the_last_five_minutes_and_an_erased_user_is_gone(service):
    client, store, _ = service
    user = client.get("/users").json()["users"][1]
    item = client.get("/popular", params={"limit": 50}).json()["items"][-1]["movie_id"]
    event = {"user_id": user, "item_id": item, "event_type": "click"}
    assert client.post("/feedback", json=event).status_code == 200
    assert client.get(f"/users/{user}/features").json()["clicks"] == 1
    deadline = time.monotonic() + 30
    while item not in [row["movie_id"] for row in client.get("/popular?window=5m").json()["items"]]:
        assert time.monotonic() < deadline, "the click never became popular"
        time.sleep(0.1)

    commands = typer.Typer()
    event_commands.register(commands)
    erasure_commands.register(commands)
    log, state = str(store.parent / "log"), str(store.parent / "state")

    def marquee(*words):
        return CliRunner().invoke(commands, [*words, "--state-dir", state, "--log", log])

    assert marquee("events", "export").exit_code == 0
    assert marquee("erasure", "verify", str(user)).exit_code == 1
    receipt = client.delete(f"/users/{user}").json()
    assert receipt["removed"]["state"] == receipt["removed"]["log"] == 1
    assert client.get(f"/users/{user}/history").json()["history"] == []
    assert client.post("/recommend", json={"user_id": user}).json()["strategy"] == "popular"
    verified = marquee("erasure", "verify", str(user))
    assert verified.exit_code == 0, verified.output


def test_concurrent_requests_each_get_their_own_answer(service):
    client, _, _ = service
    users = client.get("/users", params={"limit": 30}).json()["users"]

    def ask(user):
        return client.post("/recommend", json={"user_id": user, "num_recommendations": 5}).json()

    alone = {user: ask(user)["recommendations"] for user in users}
    fresh = {"Cache-Control": "no-cache"}
    with ThreadPoolExecutor(16) as pool:
        bodies = pool.map(
            lambda user: client.post(
                "/recommend", json={"user_id": user, "num_recommendations": 5}, headers=fresh
            ).json(),
            users * 3,
        )
        for body in bodies:
            assert body["recommendations"] == alone[body["user_id"]]


def test_head_has_no_body_and_the_connection_goes_on(service):
    client, _, _ = service
    for path in ("/ready", "/popular", "/", "/docs"):
        response = client.head(path)
        assert response.status_code == 200
        assert int(response.headers["content-length"]) > 0
        assert not response.content
    assert client.get("/health").json() == {"status": "ok"}


def test_a_ten_megabyte_body_is_refused(service):
    client, _, _ = service
    response = client.post("/recommend", content=b" " * 10_000_000)
    assert response.status_code == 413


def test_a_promotion_switches_and_a_broken_version_does_not(service):
    client, store, _ = service

    def version():
        return client.get("/info").json()["model_version"]

    def becomes(wanted):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if version() == wanted:
                return True
            time.sleep(0.1)
        return False

    assert version() == "1"
    _promote(store, "2")
    assert becomes("2")
    broken = store / "bundles" / "3"
    broken.mkdir()
    (broken / "manifest.json").write_text("{")
    _promote(store, "3")
    time.sleep(0.5)  # it looks five times a second
    assert version() == "2"
    assert client.post("/recommend", json={"user_id": 1}).status_code == 200
    _promote(store, "1")
    assert becomes("1")


def _child(service_process, name):
    """The first descendant with this in its command line."""
    return next(pid for pid in sorted(_children(service_process.pid)) if name in command_line(pid))


def _kill(service_process, name):
    os.kill(_child(service_process, name), signal.SIGKILL)


def _callers(service_process, stage):
    """How many connections the stage's replica has on its Unix socket."""
    pid = _child(service_process, f"ServeReplica:marquee:{stage}")
    own = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            own.add(str(file.readlink()))
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    paths = [row[7] for row in rows if len(row) > 7 and f"socket:[{row[6]}]" in own]
    # The socket that listens has the path too.
    return sum(f"/{stage.lower()}-" in path for path in paths) - 1


def _until(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_acknowledged_feedback_outlives_a_killed_valkey_which_comes_back(service):
    client, _, process = service
    event = {"user_id": "survivor", "item_id": 10, "event_type": "view"}
    assert client.post("/feedback", json=event).status_code == 200
    for _ in range(2):  # the state's and the cache's
        _kill(process, "valkey-server 127.0.0.1")
        assert client.post("/recommend", json={"user_id": 1}).status_code == 200
    later = event | {"item_id": 20}
    _until(lambda: client.post("/feedback", json=later).status_code == 200)
    rows = client.get("/users/survivor/history").json()["history"]
    assert {10, 20} <= {row["movie_id"] for row in rows}


def test_a_killed_stage_replica_is_done_without_until_it_is_back(service):
    client, _, process = service

    def degraded():
        response = client.post(
            "/recommend", json={"user_id": 1}, headers={"Cache-Control": "no-cache"}
        )
        assert response.status_code == 200
        return response.json()["degraded"]

    _until(lambda: not degraded())
    _kill(process, "ServeReplica:marquee:Retrieve")  # of all stages the one that starts soonest
    assert degraded() == ["retrieve"]
    _until(lambda: not degraded())
    # First by Serve's handle, then again by a socket.
    _until(lambda: not degraded() and _callers(process, "Retrieve") == 1)
    assert _callers(process, "Embed") == _callers(process, "Rank") == 1


def test_half_a_request_is_told_so_and_delays_nobody(service):
    client, _, _ = service
    with socket.create_connection(("127.0.0.1", client.base_url.port), timeout=30) as half:
        half.sendall(b'POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"user_id"')
        assert client.post("/recommend", json={"user_id": 1}).status_code == 200
        assert half.recv(1000).startswith(b"HTTP/1.1 408")


def test_a_port_in_use_is_one_line_and_exit_status_2(service):
    client, store, _ = service
    process = _serve("--store", store, "--port", client.base_url.port)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error.strip().count("\n") == 0
    assert "choose another with --port" in error
