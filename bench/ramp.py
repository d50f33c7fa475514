"""A load that rises and falls, and what the service did meanwhile: the test of autoscaling."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from bench.load import Plan, Sample, measure
from bench.serve import http_request

_PATH = "/recommend"
_USERS = 500

Observe = Callable[[], dict[str, Any]]


def ramp(
    url: str,
    clients: Sequence[int],
    step_s: float,
    observe: Observe,
    *,
    settle_s: float = 0.0,
    every_s: float = 1.0,
) -> dict[str, Any]:
    """Load the service with each number of clients in turn, for `step_s` seconds each.

    Returns `steps`, what was answered at each; `timeline`, what `observe` saw every `every_s`
    seconds until `settle_s` after the last step, with the clients at that moment; and `errors`,
    the requests that failed. Slates are asked afresh, so that each walks the whole graph.
    """
    watch = Watch(observe, every_s)
    steps = []
    with watch:
        for count in clients:
            watch.clients = count
            steps.append({"clients": count, **asdict(_step(url, count, step_s))})
        watch.clients = 0
        time.sleep(settle_s)
    return {
        "steps": steps,
        "timeline": watch.seen,
        "errors": sum(step["errors"] for step in steps),
    }


def _step(url: str, clients: int, step_s: float) -> Sample:
    address = urlsplit(url)
    users = [http_request(_PATH, user, cached=False) for user in range(1, _USERS + 1)]
    plan = Plan(
        host=address.hostname or "127.0.0.1",
        port=address.port or 80,
        requests=users,
        order=list(range(_USERS)),
        duration_s=step_s,
        clients=clients,
        must_contain="recommendations",
    )
    return measure(plan)


class Watch:
    """Looks at regular intervals in a thread of its own, from entering it to leaving it.

    seen: what `observe` told, with the second and the number of `clients` at that moment.
    """

    def __init__(self, observe: Observe, every_s: float) -> None:
        self.clients = 0
        self.seen: list[dict[str, Any]] = []
        self._observe = observe
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        start = time.monotonic()
        for number in itertools.count(1):
            at_s = round(time.monotonic() - start, 1)
            self.seen.append({"at_s": at_s, "clients": self.clients, **self._observe()})
            if self._ended.wait(max(0.0, start + number * self._every_s - time.monotonic())):
                return
