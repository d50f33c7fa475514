"""The load tests' scenarios: how many requests a second are asked for, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    """Requests per second in `steps` of equal length; all of it takes `duration_s` seconds.

    cached: a slate may come from the cache. Without it every request keeps the stages busy.
    """

    summary: str
    steps: Sequence[int]
    duration_s: float
    cached: bool = True

    def rate_at(self, second: float, duration_s: float) -> int | None:
        """Requests per second at that second of a run of `duration_s`; None after its end."""
        if second >= duration_s:
            return None
        return self.steps[int(second / duration_s * len(self.steps))]


SCENARIOS = {
    "normal": Scenario("50 requests a second for 5 minutes", (50,), 300.0),
    "peak": Scenario("150 requests a second for 2 minutes", (150,), 120.0),
    "stress": Scenario("from 50 up to 300 requests a second", (50, 100, 150, 200, 250, 300), 180.0),
    "autoscale": Scenario(
        "up and down again, each slate afresh, while Ray adds nodes",
        (20, 200, 200, 20, 20),
        150.0,
        cached=False,
    ),
}
