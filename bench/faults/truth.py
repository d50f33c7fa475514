"""What each version answers when it is alone, and whether an answer is of one version."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.faults.load import LIMIT, Answer, Id
from bench.faults.versions import MARK, OTHER, SOUND
from training.store import Store

_SWITCH_TIMEOUT_S = 60.0
# Ties may be broken otherwise in another batch; a mixture has next to nothing in common.
_COMMON = 0.8

Slates = dict[str, dict[Id, frozenset[Id]]]


@dataclass(frozen=True)
class Truth:
    """Items of every user's slate by version."""

    slates: Slates
    id_field: str

    def is_mixed(self, answer: Answer) -> bool:
        """Whether a slate is not what the version that it names gives.

        Every title carries its version's mark. What was made without a part of the service is
        not its user's whole slate, so of that only the titles are looked at.
        """
        rows = answer.body.get("recommendations", [])
        version = answer.body.get("model_version", "")
        if any(row["title"].endswith(MARK) != (version == OTHER) for row in rows):
            return True
        if answer.is_degraded or version not in self.slates:
            return version not in self.slates
        own = self.slates[version][answer.user_id]
        return len(own & _items(rows, self.id_field)) < _COMMON * len(own)


async def learn(
    session: aiohttp.ClientSession, url: str, store: Store, users: Sequence[Id], id_field: str
) -> Truth:
    """Ask each version for every user's slate while it alone answers; SOUND answers at the end."""
    slates: Slates = {}
    for version in (OTHER, SOUND):
        store.promote(version)
        await answers(session, url, version)
        slates[version] = {
            user: await _slate(session, url, user, version, id_field) for user in users
        }
    return Truth(slates, id_field)


async def answers(session: aiohttp.ClientSession, url: str, version: str) -> None:
    """Wait until the version answers. Raises TimeoutError."""
    deadline = time.monotonic() + _SWITCH_TIMEOUT_S
    while True:
        async with session.get(f"{url}/info") as response:
            if (await response.json())["model_version"] == version:
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"version {version} does not answer after {_SWITCH_TIMEOUT_S:g} s")
        await asyncio.sleep(0.1)


async def _slate(
    session: aiohttp.ClientSession, url: str, user: Id, version: str, id_field: str
) -> frozenset[Id]:
    """The version's whole slate: another replica may still answer with the one before, and a
    service that has just started may do without a part of it."""
    deadline = time.monotonic() + _SWITCH_TIMEOUT_S
    while True:
        async with session.post(
            f"{url}/recommend",
            json={"user_id": user, "num_recommendations": LIMIT},
            headers={"Cache-Control": "no-cache"},
        ) as response:
            body = await response.json()
        if body.get("model_version") == version and not body["degraded"]:
            return _items(body["recommendations"], id_field)
        if time.monotonic() > deadline:
            raise TimeoutError(f"version {version} gives no whole slate: {body}")
        await asyncio.sleep(0.1)


def _items(rows: Sequence[dict[str, Any]], id_field: str) -> frozenset[Id]:
    return frozenset(row[id_field] for row in rows)
