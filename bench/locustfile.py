"""The load of a scenario, for Locust: `marquee bench load` runs it.

Every simulated viewer asks once a second, so as many requests a second come as there are viewers.
Nineteen of twenty ask for a slate, of a user chosen by Zipf's law; the others give feedback.
"""

from __future__ import annotations

import json
import os
import random
from itertools import accumulate
from urllib.request import urlopen

from locust import FastHttpUser, LoadTestShape, constant_throughput, events, task
from locust.env import Environment

from bench.load_scenarios import SCENARIOS

_SCENARIO = SCENARIOS[os.environ["MARQUEE_LOAD_SCENARIO"]]
_HEADERS = {} if _SCENARIO.cached else {"Cache-Control": "no-cache"}
_USERS = 1000
_ITEMS = 100


class Known:
    """Ids to ask with, read from the service before the first request."""

    users: list[int | str] = []
    weights: list[float] = []
    items: list[int | str] = []


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def read_ids(environment: Environment, **_: object) -> None:
    """Ask the service whom and what it knows."""
    with urlopen(f"{environment.host}/users?limit={_USERS}", timeout=30) as answer:
        Known.users = json.load(answer)["users"]
    with urlopen(f"{environment.host}/popular?limit={_ITEMS}", timeout=30) as answer:
        rows = json.load(answer)["items"]
    Known.items = [row.get("movie_id", row.get("item_id")) for row in rows]
    Known.weights = list(accumulate(1 / rank for rank in range(1, len(Known.users) + 1)))


class Viewer(FastHttpUser):
    """Asks once a second."""

    wait_time = constant_throughput(1)

    @task(19)
    def slate(self) -> None:
        """A slate of ten; one made without a part of the service is no failure."""
        body = {"user_id": _someone(), "num_recommendations": 10}
        self.client.post("/recommend", json=body, headers=_HEADERS, name="slate")

    @task(1)
    def feedback(self) -> None:
        """An item was looked at."""
        body = {
            "user_id": _someone(), "item_id": random.choice(Known.items), "event_type": "view",
        }  # fmt: skip
        self.client.post("/feedback", json=body, name="feedback")


class Steps(LoadTestShape):
    """As many viewers as the scenario has requests a second."""

    def tick(self) -> tuple[int, float] | None:
        """Viewers now, and how many of them may come or go per second; None ends the test."""
        rate = _SCENARIO.rate_at(
            self.get_run_time(),  # type: ignore[no-untyped-call]
            float(os.environ["MARQUEE_LOAD_DURATION_S"]),
        )
        return None if rate is None else (rate, 100)


def _someone() -> int | str:
    (user,) = random.choices(Known.users, cum_weights=Known.weights)
    return user
