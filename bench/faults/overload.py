"""Ten times as many requests as the service can answer.

They ask for long slates, so that on a machine that is shared with the load its generator, too,
can send ten times what the service can do.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from bench.faults.load import Load, Log
from bench.faults.service import Served
from bench.load import percentile

TIMES = 10
MAX_P99_S = 1.0
MAX_RECOVERY_S = 10.0
MAX_GROWTH_BYTES = 200 * 2**20
_SLATE = 400
_CLIENTS = 32
_MEASURE_S = 4.0
_FLOOD_S = 10.0
_AFTER_S = 12.0
_AFTER_PER_S = 20.0
_WHOLE_S = 0.5


@dataclass(frozen=True)
class Overload:
    """Figures of the flood. Latencies are of requests that were served."""

    capacity_per_s: float
    offered_per_s: float
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


async def overload(load: Load, served: Served) -> Overload:
    """Measure what the service can do, offer ten times as much, then next to nothing."""
    capacity = await _capacity(load)
    before = served.memory_bytes()
    flood = Log()
    began = time.monotonic()
    peak = await _flood(load, flood, capacity * TIMES, served)
    ended = time.monotonic()
    after = Log()
    await _trickle(load, after)
    ok = [answer for answer in flood.answers if answer.status == 200]
    took = sorted(answer.took_s for answer in ok)
    refused_took = sorted(answer.took_s for answer in flood.answers if answer.is_refused)
    errors = [answer for answer in (*flood.answers, *after.answers) if answer.is_error]
    p99 = percentile(took, 0.99)
    late = [a.sent_at - ended for a in after.answers if a.status != 200 or a.took_s > _WHOLE_S]
    recovery_s = max(late, default=0.0)
    growth = max(0, peak - before)
    held = (
        not errors
        and bool(refused_took)
        and p99 is not None
        and p99 < MAX_P99_S
        and growth < MAX_GROWTH_BYTES
        and recovery_s < MAX_RECOVERY_S
    )
    return Overload(
        capacity_per_s=round(capacity, 1),
        offered_per_s=round(len(flood.answers) / (ended - began), 1),
        served=len(ok),
        served_per_s=round(len(ok) / (ended - began), 1),
        refused=len(refused_took),
        errors=len(errors),
        p50_ms=_ms(percentile(took, 0.5)),
        p99_ms=_ms(p99),
        refusal_p99_ms=_ms(percentile(refused_took, 0.99)),
        memory_growth_mb=round(growth / 2**20, 1),
        recovery_s=round(recovery_s, 2),
        problems=tuple(Counter(answer.problem for answer in errors).most_common(3)),
        held=held,
    )


async def _capacity(load: Load) -> float:
    """Answers a second to clients that always wait for one."""
    log = Log()
    began = time.monotonic()

    async def client(first: int) -> None:
        number = first
        while time.monotonic() - began < _MEASURE_S:
            await load.slate(number, log, limit=_SLATE, fresh=True)
            number += _CLIENTS

    await asyncio.gather(*map(client, range(_CLIENTS)))
    return sum(a.status == 200 for a in log.answers) / (time.monotonic() - began)


async def _flood(load: Load, log: Log, per_s: float, served: Served) -> int:
    """Requests at that rate whatever comes back; the most memory seen meanwhile, bytes."""
    peak = 0
    sent: set[asyncio.Task[None]] = set()
    start = time.monotonic()
    for number in range(int(per_s * _FLOOD_S)):
        if (ahead := start + number / per_s - time.monotonic()) > 0:
            await asyncio.sleep(ahead)
        elif number % 10 == 0:
            await asyncio.sleep(0)  # behind: the answers need their turn, too
        task = asyncio.create_task(load.slate(number, log, limit=_SLATE, fresh=True))
        sent.add(task)
        task.add_done_callback(sent.discard)
        if number % max(1, int(per_s)) == 0:
            peak = max(peak, served.memory_bytes())
    await asyncio.gather(*sent)
    return max(peak, served.memory_bytes())


async def _trickle(load: Load, log: Log) -> None:
    start = time.monotonic()
    tasks = []
    for number in range(int(_AFTER_S * _AFTER_PER_S)):
        await asyncio.sleep(max(0.0, start + number / _AFTER_PER_S - time.monotonic()))
        tasks.append(asyncio.create_task(load.slate(number, log, fresh=True)))
    await asyncio.gather(*tasks)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
