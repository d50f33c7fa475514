"""The whole service as a user runs it: HAProxy, Serve, Valkey, Qdrant Edge, over HTTP."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.bundles import tiny_bundle

pytestmark = pytest.mark.integration


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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
    port = _free_port()
    process = _serve(
        "--store", store, "--port", port, "--state-dir", path / "state",
        MARQUEE_POLL_S="0.2",
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
    time.sleep(1)
    assert version() == "2"
    assert client.post("/recommend", json={"user_id": 1}).status_code == 200
    _promote(store, "1")
    assert becomes("1")


def test_a_port_in_use_is_one_line_and_exit_status_2(service):
    client, store, _ = service
    process = _serve("--store", store, "--port", client.base_url.port)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error.strip().count("\n") == 0
    assert "choose another with --port" in error


@pytest.mark.parametrize("damage", ["half-written", "wrong format", "no index"])
def test_a_damaged_bundle_is_one_line_and_exit_status_2(tmp_path, damage):
    store = _store(tmp_path / "store")
    bundle = store / "bundles" / "1"
    manifest = bundle / "manifest.json"
    if damage == "half-written":
        manifest.unlink()
    elif damage == "wrong format":
        manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 99', 1))
    else:
        next(p for p in (bundle / "index").rglob("*") if p.is_file()).unlink()
    process = _serve("--store", store, "--port", _free_port(), "--state-dir", tmp_path / "state")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Traceback" not in error
    assert error.strip().count("\n") == 0


def test_an_empty_store_says_how_to_fill_it(tmp_path):
    process = _serve("--store", tmp_path, "--port", _free_port())
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "marquee publish" in error
