"""The same measurements on a service started another way, in a process of its own.

Serve reads how it is to run from the environment, once for each process, so a service with other
settings needs another. ``python -m bench.comparison`` reads a start as JSON from stdin and writes
its figures as JSON to stdout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from typing import Any

from app.settings import Settings
from bench import processes
from bench.serve import Workload, bench_serve

_ALL_MAY_WAIT_MS = 60_000
_ACCELERATION = ("RAY_SERVE_", "RAY_ADDRESS")


@dataclass(frozen=True)
class Start:
    """How the service is started: its settings that differ, and whether Serve is stock."""

    settings: dict[str, Any]
    workload: dict[str, Any]
    accelerated: bool = True


def fused(settings: Settings, workload: Workload) -> Start:
    """All stages inside the ingress replica."""
    return Start(
        settings.model_dump(mode="json") | {"topology": "fused"},
        asdict(workload) | {"modes": ("empty", "uncached")},
    )


def stock(settings: Settings, workload: Workload) -> Start:
    """The graph as Serve runs it by itself: its Python proxy, and every request for itself."""
    alone = {
        "topology": "graph",
        "max_batch": 1,
        "batches_in_flight": settings.max_ongoing_requests,
        "max_ongoing_requests": settings.max_ongoing_requests,
        "max_wait_ms": _ALL_MAY_WAIT_MS,
    }
    changed = {"modes": ("empty", "uncached"), "closed_only": True}
    return Start(
        settings.model_dump(mode="json") | alone, asdict(workload) | changed, accelerated=False
    )


def measure(start: Start) -> dict[str, Any]:
    """Start it in another process and measure. Raises CalledProcessError when that fails."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_ACCELERATION)}
    done = subprocess.run(
        [sys.executable, "-m", "bench.comparison"],
        input=json.dumps(asdict(start)),
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def main() -> None:
    """Read a start from stdin, write its figures to stdout."""
    start = Start(**json.load(sys.stdin))
    given: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in start.workload.items()
    }
    with processes.ending_with_this_process(), redirect_stdout(sys.stderr):
        figures = bench_serve(
            Settings.model_validate(start.settings),
            Workload(**given),
            lambda doing: None,
            accelerated=start.accelerated,
        )
    json.dump(figures, sys.stdout)


if __name__ == "__main__":
    main()
