"""Ten times as many requests as the service can answer.

They ask for very long slates, so that ten times as many are still what this process can send, and
HAProxy take in, beside a service on the same two cores: about 2,500 a second. Everybody is another
user, so that slates are not shared (docs/adr/0042).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.faults.flood import Flood, Outcome
from bench.faults.load import Id, Load, Log
from bench.faults.service import HOST, Served, resident_bytes
from bench.load import Plan, percentile, run
from bench.serve import http_request

TIMES = 10
MAX_P99_S = 1.0
MAX_RECOVERY_S = 10.0
MAX_GROWTH_BYTES = 200 * 2**20
_SLATE = 1000
_CLIENTS = 16
_WARMUP_S, _MEASURE_S = 1.0, 4.0
_FLOOD_S = 10.0
_AFTER_S = 12.0
_AFTER_PER_S = 20.0
_WHOLE_S = 0.5


@dataclass(frozen=True)
class Overload:
    """Figures of the flood. Latencies are of requests that were served."""

    capacity_per_s: float
    offered_per_s: float
    late_s: float
    """How far behind ten times the capacity the client fell at worst."""
    served: int
    served_per_s: float
    refused: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None
    refusal_p99_ms: float | None
    memory_growth_mb: float
    recovery_s: float
    problems: tuple[tuple[str, int], ...]
    held: bool

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


async def overload(load: Load, served: Served, users: Sequence[Id]) -> Overload:
    """Measure what the service can do, offer ten times as much, then next to nothing.

    users: they ask in turn; so many that hardly two ask for the same slate at a time.
    """
    requests = [http_request("/recommend", user, cached=False, slate=_SLATE) for user in users]
    capacity = (await run(_all_it_can(served, requests))).rps
    ingress = served.replica("Gateway")
    before = resident_bytes(ingress)
    peak = before

    def look() -> None:
        nonlocal peak
        peak = max(peak, resident_bytes(ingress))

    flood = Flood(HOST, served.port, [request.encode() for request in requests])
    began = time.monotonic()
    outcome = await flood.run(capacity * TIMES, _FLOOD_S, look)
    ended = time.monotonic()
    after = Log()
    await _trickle(load, after)
    return _figures(capacity, outcome, ended - began, peak - before, _recovery_s(after, ended))


def _figures(
    capacity_per_s: float, outcome: Outcome, took_s: float, growth_bytes: int, recovery_s: float
) -> Overload:
    served, refused = sorted(outcome.served_s), sorted(outcome.refused_s)
    p99 = percentile(served, 0.99)
    errors = outcome.problems.total()
    held = (
        not errors
        and bool(refused)
        and p99 is not None
        and p99 < MAX_P99_S
        and growth_bytes < MAX_GROWTH_BYTES
        and recovery_s < MAX_RECOVERY_S
    )
    return Overload(
        capacity_per_s=round(capacity_per_s, 1),
        offered_per_s=round(outcome.offered / took_s, 1),
        late_s=round(outcome.late_s, 2),
        served=len(served),
        served_per_s=round(len(served) / took_s, 1),
        refused=len(refused),
        errors=errors,
        p50_ms=_ms(percentile(served, 0.5)),
        p99_ms=_ms(p99),
        refusal_p99_ms=_ms(percentile(refused, 0.99)),
        memory_growth_mb=round(max(0, growth_bytes) / 2**20, 1),
        recovery_s=round(recovery_s, 2),
        problems=tuple(outcome.problems.most_common(3)),
        held=held,
    )


def _all_it_can(served: Served, requests: Sequence[str]) -> Plan:
    """Clients that always wait for an answer."""
    return Plan(
        host=HOST,
        port=served.port,
        requests=list(requests),
        order=list(range(len(requests))),
        duration_s=_MEASURE_S,
        warmup_s=_WARMUP_S,
        clients=_CLIENTS,
    )


def _recovery_s(after: Log, ended: float) -> float:
    """Until the last request that failed, was refused or was slow."""
    late = [
        answer.sent_at - ended
        for answer in after.answers
        if answer.status != 200 or answer.took_s > _WHOLE_S
    ]
    return max(late, default=0.0)


async def _trickle(load: Load, log: Log) -> None:
    start = time.monotonic()
    tasks = []
    for number in range(int(_AFTER_S * _AFTER_PER_S)):
        await asyncio.sleep(max(0.0, start + number / _AFTER_PER_S - time.monotonic()))
        tasks.append(asyncio.create_task(load.slate(number, log, fresh=True)))
    await asyncio.gather(*tasks)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
