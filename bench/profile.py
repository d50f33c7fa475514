"""Where an uncached request's CPU goes: seconds from /proc, their parts from py-spy.

py-spy's samples are of the wall clock; those of threads that wait are left out, and with them the
event loop's own C code, which looks the same as its waiting. A sample belongs to the innermost part
of the program that is on its stack, so that NumPy called by the ranker counts as the ranker.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

from app.free_ports import free_port
from app.local import LocalService
from app.settings import Settings
from bench.load import Plan, measure
from bench.memory import cpu_seconds, process_name
from bench.processes import descendants
from bench.serve import http_request, production, zipf_order
from training.model.bundle import Bundle

_RATE_HZ = 200
_WARMUP_S = 2.0
_REQUESTS = 5_000
_LEAST_MS = 0.005  # a process that costs less is not named
# Innermost first decides; the first text that a frame contains names its part.
_PARTS = (
    ("app/stages/embed", "tower"),
    ("two_tower", "tower"),
    ("app/adapters/exact_scan", "index"),
    ("app/adapters/qdrant", "index"),
    ("model/ranking", "ranker"),
    ("app/stages/rerank", "ranker"),
    ("app/stages/", "slate"),
    ("app/adapters/redis", "redis"),
    ("redis/", "redis"),
    ("app/adapters/unix_calls", "hop"),
    ("app/adapters/stage_handles", "hop"),
    ("grpc/", "hop"),
    ("ray/serve/_private/router", "hop"),
    ("ray/serve/_private/request_router", "hop"),
    ("ray/serve/_private/serialization", "hop"),
    ("ray/serve/handle", "hop"),
    ("app/api/", "api"),
    ("app/logs", "api"),
    ("structlog/", "api"),
    ("pydantic/", "api"),
    ("prometheus_client/", "metrics"),
    ("ray/util/metrics", "metrics"),
    ("uvicorn/", "http"),
    ("starlette/", "http"),
    ("fastapi/", "http"),
    ("app/", "pipeline"),
    ("ray/", "serve"),
)
_IDLE = (
    "wait (threading.py",
    "run (threading.py",
    "_worker (concurrent",
    "main_loop (ray",
    "poll (",
    "select (",
)
_OTHER = "other"


class ProfileError(Exception):
    """Nothing can be measured; the message says what to do."""


def profile_serve(
    settings: Settings,
    *,
    clients: int,
    duration_s: float,
    report: Callable[[str], None],
    stacks: Path | None = None,
) -> dict[str, Any]:
    """CPU ms per request by process, and the shares of each replica's parts.

    stacks: where py-spy's stacks are kept, a file for each replica, as flame graph tools read them.
    Raises ProfileError without py-spy or when it may not look, StartError without a service.
    """
    spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
    if spy is None:
        raise ProfileError("py-spy is not installed; `pip install -e .[bench]` has it")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="marquee-profile-") as folder:
        report("starting the service")
        with LocalService(settings, port=port, state_dir=Path(folder) / "state"):
            plan = _uncached(port, production(settings), clients, duration_s)
            report("warming up")
            measure(replace(plan, duration_s=_WARMUP_S))
            report("CPU of each process")
            before = cpu_seconds(os.getpid())
            sample = measure(plan)
            used = cpu_seconds(os.getpid())
            report("parts of each replica")
            kept = stacks or Path(folder)
            kept.mkdir(parents=True, exist_ok=True)
            parts = _parts(spy, plan, kept)
    per_request = {
        name: round((seconds - before[name]) * 1000 / max(1, sample.answers), 4)
        for name, seconds in used.items()
    }
    return {
        "topology": settings.topology,
        "clients": clients,
        "rps": sample.rps,
        "errors": sample.errors,
        "cpu_ms_per_request": {
            name: cost
            for name, cost in sorted(per_request.items(), key=lambda item: -item[1])
            if cost >= _LEAST_MS
        },
        "parts": parts,
    }


def _uncached(port: int, bundle: Bundle, clients: int, duration_s: float) -> Plan:
    rows = zipf_order(len(bundle.user_ids), _REQUESTS, seed=0)
    users = [u.decode() if isinstance(u, bytes) else u for u in bundle.user_ids[rows].tolist()]
    return Plan(
        host="127.0.0.1",
        port=port,
        requests=[http_request("/recommend", user, cached=False) for user in users],
        order=list(range(len(users))),
        duration_s=duration_s,
        clients=clients,
    )


def _parts(spy: str, plan: Plan, folder: Path) -> dict[str, dict[str, float]]:
    """Replica -> part -> share of its busy samples, under the load of the plan."""
    replicas = {
        name: pid for pid in descendants(os.getpid()) if (name := _replica(pid)) is not None
    }
    load = Thread(target=measure, args=(replace(plan, duration_s=plan.duration_s + _WARMUP_S),))
    load.start()
    spies = {
        name: subprocess.Popen(
            [spy, "record", "--pid", str(pid), "--format", "raw", "--rate", str(_RATE_HZ)]
            + ["--output", str(folder / name), "--duration", str(max(1, int(plan.duration_s)))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, pid in replicas.items()
    }
    problems = [process.communicate()[1] for process in spies.values()]
    load.join()
    for process, problem in zip(spies.values(), problems, strict=True):
        if process.returncode:
            raise ProfileError(f"py-spy cannot look: {problem.strip().splitlines()[-1]}")
    return {name: shares((folder / name).read_text()) for name in sorted(replicas)}


def shares(stacks: str) -> dict[str, float]:
    """Share of each part, largest first, in stacks as py-spy writes them: `frame;...;frame n`."""
    counted: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, number = line.rpartition(" ")
        frames = stack.split(";")
        if not any(idle in frames[-1] for idle in _IDLE):
            counted[_part(frames)] += int(number)
    total = counted.total() or 1
    return {part: round(number / total, 3) for part, number in counted.most_common()}


def _part(frames: list[str]) -> str:
    for frame in reversed(frames):
        for text, part in _PARTS:
            if text in frame:
                return part
    return _OTHER


def _replica(pid: int) -> str | None:
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if command.startswith(b"ray::ServeReplica:"):
            return process_name(pid)
    return None
