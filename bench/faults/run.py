"""Starts the service, and for each fault: load, hurt, look, judge."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from bench.faults import truth
from bench.faults.load import Answer, Id, Load, Log
from bench.faults.overload import overload
from bench.faults.scenarios import NODE_KILLED, SCENARIOS, Scene
from bench.faults.service import Served, marquee_serve
from bench.faults.verdict import Verdict, judge
from bench.faults.versions import two_versions
from bench.serve import machine
from training.model.bundle import Bundle

OVERLOAD = "overload"
NAMES = (*SCENARIOS, OVERLOAD)
_USERS, _WRITERS = 60, 20
_FLOOD_USERS = 5_000
_STREAM = "marquee:events"
_HISTORY_TRIES = 5
_TWO_NODES = (sys.executable, "-m", "bench.faults.two_nodes")

Report = Callable[[str], None]


@dataclass(frozen=True)
class Conditions:
    """per_s: requests a second beside every fault. before_s, after_s: time around it, seconds.
    replicas: of each deployment."""

    per_s: float = 100.0
    before_s: float = 5.0
    after_s: float = 15.0
    replicas: int = 2


def bench_faults(
    source: Bundle, names: Sequence[str], conditions: Conditions, report: Report
) -> dict[str, Any]:
    """The figures of each fault by its name. Raises UserError when the service does not start.

    source: of its users some ask and some give feedback, to a service with an empty state.
    """
    _allow_many_connections()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="marquee-faults-") as directory:
        root = Path(directory)
        store = two_versions(source, root / "store")
        here = [name for name in names if name != NODE_KILLED]
        for command, chosen in ((marquee_serve(), here), (_TWO_NODES, names)):
            if command is _TWO_NODES:
                chosen = [name for name in names if name == NODE_KILLED]
            if not chosen:
                continue
            report("starting the service")
            environment = {"MARQUEE_REPLICAS": str(conditions.replicas)}
            state = root / f"state-{len(figures)}"
            with Served(root / "store", state, command=command, environment=environment) as served:
                bench = _Bench(served, store, source, conditions, report)
                figures |= uvloop.run(bench.run(chosen))
    faults = {name: figures[name] for name in names}
    return {
        "faults": faults,
        "held": all(figures["held"] for figures in faults.values()),
        "conditions": vars(conditions),
        "machine": machine(),
    }


class _Bench:
    """The faults of one running service."""

    def __init__(
        self,
        served: Served,
        store: Any,
        source: Bundle,
        conditions: Conditions,
        report: Report,
    ) -> None:
        self._served = served
        self._store = store
        self._source = source
        self._conditions = conditions
        self._report = report

    async def run(self, names: Sequence[str]) -> Mapping[str, dict[str, Any]]:
        """Figures by name."""
        url = self._served.url
        users = _ids(self._source.user_ids, _USERS + _WRITERS)
        figures = {}
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            self._report("asking each version alone")
            field = self._source.manifest.entity.id_field
            known = await truth.learn(session, url, self._store, users[:_USERS], field)
            load = Load(
                session,
                url,
                users=users[:_USERS],
                writers=users[_USERS:],
                items=self._source.items.ids,
            )
            scene = Scene(self._served, self._store, session)
            for name in names:
                self._report(name)
                if name == OVERLOAD:
                    many = _ids(self._source.user_ids, _FLOOD_USERS)
                    flood = await overload(load, self._served, many)
                    figures[name] = flood.as_json()
                else:
                    figures[name] = (await self._fault(name, scene, load, known)).as_json()
                # Known even of a run that is cut short.
                self._report(f"{name}: {json.dumps(figures[name])}")
        return figures

    async def _fault(self, name: str, scene: Scene, load: Load, known: truth.Truth) -> Verdict:
        async with load.steady(self._conditions.per_s) as log:
            await asyncio.sleep(self._conditions.before_s)
            span = await SCENARIOS[name](scene)
            await asyncio.sleep(self._conditions.after_s)
        return judge(log, span, known, await _lost(scene, log))


async def _lost(scene: Scene, log: Log) -> list[Answer]:
    """Acknowledged feedback that is missing in its user's history or in the stream of events."""
    redis = scene.redis("state")
    entries: Any = await redis.xrange(_STREAM)
    await redis.aclose()
    streamed = {(fields[b"user_id"].decode(), fields[b"item_id"].decode()) for _, fields in entries}
    acknowledged: dict[Id, list[Answer]] = {}
    for answer in log.feedback:
        if answer.status == 200:
            acknowledged.setdefault(answer.user_id, []).append(answer)
    lost = []
    for user, answers in acknowledged.items():
        history = await _history(scene, user, {answer.item_id for answer in answers})
        lost += [
            answer
            for answer in answers
            if (str(user), str(answer.item_id)) not in streamed or answer.item_id not in history
        ]
    return lost


async def _history(scene: Scene, user: Id, expected: set[Id | None]) -> set[Id | None]:
    """The items of the user's feedback. Where some are missing it is asked again for a while: the
    service does without a state that is late, and says the bundle's part of the history."""
    for _ in range(_HISTORY_TRIES):
        found = await _told(scene, user)
        if expected <= found:
            break
        await asyncio.sleep(1.0)
    return found


async def _told(scene: Scene, user: Id) -> set[Id | None]:
    url = f"{scene.served.url}/users/{user}/history?limit=1000"
    async with scene.session.get(url) as response:
        rows = (await response.json())["history"]
    return {
        row.get("movie_id", row.get("item_id")) for row in rows if row["event_type"] is not None
    }


def _ids(user_ids: Any, n: int) -> list[Id]:
    """Users of the bundle, evenly spread."""
    chosen = user_ids[:: max(1, len(user_ids) // n)][:n].tolist()
    return [user.decode() if isinstance(user, bytes) else user for user in chosen]


def _allow_many_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
