"""A realistic stream: users by Zipf ask for slates, and now and then tell what they did.

Cached slates are welcome. Feedback changes its user's revision, so the next slate is computed.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

FEEDBACK_SHARE = 0.05
# Ten slots are what the other modes ask for: another number is another slate, so that this stream
# finds none of theirs in the cache.
SLATE = 12

_EVENTS = ("click", "view", "watch", "like")


def realistic_bodies(
    users: list[Any], order: list[int], item_ids: list[Any], *, seed: int
) -> list[tuple[str, dict[str, Any]]]:
    """Path and body of every request, in the order in which they are sent.

    users: who asks. order: rows of `users`, one for each request. item_ids: most popular first;
    feedback names them by Zipf too.
    """
    rng = np.random.default_rng(seed)
    tells = rng.random(len(order)) < FEEDBACK_SHARE
    weight = 1.0 / np.arange(1, len(item_ids) + 1)
    items = rng.choice(len(item_ids), size=len(order), p=weight / weight.sum())
    kinds = rng.integers(0, len(_EVENTS), len(order))
    return [
        ("/feedback", {"user_id": users[row], "item_id": item_ids[item], "event_type": _EVENTS[k]})
        if told
        else ("/recommend", {"user_id": users[row], "num_recommendations": SLATE})
        for row, told, item, k in zip(order, tells, items.tolist(), kinds.tolist(), strict=True)
    ]


def http_post(host: str, path: str, body: dict[str, Any], *headers: str) -> str:
    """A whole request."""
    text = json.dumps(body)
    head = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Content-Length: {len(text.encode())}",
        *headers,
    ]
    return "\r\n".join(head) + "\r\n\r\n" + text
