"""The API with the real stages on a tiny bundle and stores in memory, over a real socket.

As a program (`make fuzz`): serves it, has schemathesis ask it, and ends with its exit status.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from threading import Thread

import httpx
import uvicorn

from app.adapters.local_stages import LocalStages
from app.adapters.none import never_loaded
from app.adapters.qdrant_edge import QdrantEdgeIndex
from app.api.routes import build_api
from app.erasing import Eraser
from app.live import Live
from app.metrics import Metrics
from app.models import Model
from app.pages import Pages
from app.pipeline import Limits, Recommender
from app.service import Service
from app.settings import Settings
from app.write_behind import WriteBehindCache
from marquee.answers import item_id
from tests.bundles import tiny_bundle
from tests.fakes import FakeEventStream, FakeSlateCache, FakeUserState, FakeWindowCounts
from training.model.bundle import Bundle


def service_over(bundle: Bundle) -> Service:
    """The service with nothing but the bundle and memory."""
    model = Model.load(bundle)
    stages = LocalStages(lambda version: bundle.path, QdrantEdgeIndex, rank_depth=50)
    state, cache, metrics = FakeUserState(), FakeSlateCache(), Metrics()
    recommender = Recommender(
        current=lambda: model,
        state=state,
        cache=WriteBehindCache(cache, metrics, timeout_s=5),
        embedder=stages,
        retriever=stages,
        ranker=stages,
        metrics=metrics,
        limits=Limits(candidates=20, stage_timeout_s=5),
    )
    return Service(
        current=lambda: model,
        recommender=recommender,
        state=state,
        metrics=metrics,
        max_batch=8,
        batches_in_flight=2,
        live=Live(FakeWindowCounts(), state, metrics, loaded_at=never_loaded, every_s=60),
        eraser=Eraser(state, FakeEventStream(), cache, None),
        max_wait_s=5.0,
        pages=Pages(cache),
    )


@asynccontextmanager
async def _nothing(_app: object):
    yield


@contextmanager
def serving(service: Service, **settings: object) -> Iterator[str]:
    """The API of the service on a free port of the loopback; yields the URL."""
    api = build_api(service, Settings(store="unused", access_log=False, **settings), _nothing)
    config = uvicorn.Config(api, host="127.0.0.1", port=0, log_level="error", http="httptools")
    server = uvicorn.Server(config)
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


# Half of the ids in paths are of something that is there; nobody is erased who is.
KNOWN = """
[dictionaries.users]
values = {users}
[dictionaries.items]
values = {items}
[parameters]
"path.item_id" = {{ dictionary = "items", probability = 0.5 }}
"body.item_id" = {{ dictionary = "items", probability = 0.5 }}
[[operations]]
include-path-regex = "/users/.*/.*"
parameters = {{ "path.user_id" = {{ dictionary = "users", probability = 0.5 }} }}
"""


def known_to(url: str) -> str:
    """The configuration of schemathesis that names ids which the service knows."""
    users = httpx.get(f"{url}/users?limit=20").raise_for_status().json()["users"]
    items = httpx.get(f"{url}/popular?limit=20").raise_for_status().json()["items"]
    ids = [list(map(str, found)) for found in (users, map(item_id, items))]
    return KNOWN.format(users=json.dumps(ids[0]), items=json.dumps(ids[1]))


def fuzz(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`schemathesis run` with all checks against the service at the URL."""
    command = [
        str(Path(sys.executable).parent / "schemathesis"), "run", f"{url}/openapi.json",
        "--checks", "all", "--no-color", *arguments,
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:  # where it keeps what failed
        (Path(directory) / "schemathesis.toml").write_text(known_to(url))
        return subprocess.run(
            command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=directory
        )


def main() -> int:
    """`python -m tests.live [--url URL] ARGUMENTS-OF-SCHEMATHESIS`."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--url"]:
        done = fuzz(*arguments[1:])
        print(done.stdout)
        return done.returncode
    with tempfile.TemporaryDirectory() as directory:
        bundle = Bundle.open(tiny_bundle(Path(directory) / "1"))
        with serving(service_over(bundle), rate_limit_per_minute=0) as url:
            done = fuzz(url, *arguments)
            print(done.stdout)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
