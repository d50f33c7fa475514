"""When a call goes again: after a random wait that grows, or the one that the service asked for."""

from __future__ import annotations

import random
from dataclasses import dataclass

import httpx


@dataclass(frozen=True)
class Retry:
    """attempts: tries in all. A wait is drawn evenly from 0 to base_s * 2**n ("full jitter": who
    failed together does not come back together), at most max_wait_s. A `Retry-After` that asks
    for more than max_wait_s ends the trying: the caller is told now.
    """

    attempts: int = 4
    base_s: float = 0.1
    max_wait_s: float = 5.0

    def wait_s(self, failed: int, response: httpx.Response | None) -> float | None:
        """Seconds until the next try, None for no more. failed: tries so far, from 1."""
        if failed >= self.attempts:
            return None
        jitter_s = random.uniform(0, min(self.max_wait_s, self.base_s * 2 ** (failed - 1)))
        asked_s = _retry_after_s(response)
        if asked_s > self.max_wait_s:
            return None
        return asked_s + jitter_s


def _retry_after_s(response: httpx.Response | None) -> float:
    """The service says whole seconds; a proxy's date counts as nothing said."""
    text = response.headers.get("retry-after", "") if response is not None else ""
    return float(text) if text.isdecimal() else 0.0
