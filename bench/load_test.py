"""Runs a scenario with Locust, without its web page, against the service started for it."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from app.adapters.valkey import Valkey
from app.free_ports import free_port
from bench.faults.service import Served, marquee_serve
from bench.load_scenarios import SCENARIOS
from bench.ramp import Watch
from bench.serve import machine
from training.errors import UserError

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
_PERCENTILES = {"p50_ms": "50%", "p95_ms": "95%", "p99_ms": "99%"}
_MAX_NODES = 3
_DOWNSCALE_DELAY_S = 8.0


def load_test(
    store: str, name: str, duration_s: float | None, report: Callable[[str], None]
) -> dict[str, Any]:
    """The scenario's figures: `slate` and `feedback` over the whole run, what the failures were,
    and a `timeline` of the seconds, whose latencies are of the last ten. For the scenario of
    autoscaling `cluster` tells the replicas of each stage and Ray's worker nodes, second by second.

    Raises UserError when something does not start.

    duration_s: instead of the scenario's own.
    """
    scenario = SCENARIOS[name]
    seconds = duration_s or scenario.duration_s
    with tempfile.TemporaryDirectory(prefix="marquee-load-") as directory:
        report("starting the service")
        with _service(name, store, Path(directory)) as (url, watch):
            report(f"{name}: {scenario.summary}, {seconds:g} s in all")
            with ExitStack() as watching:
                if watch is not None:
                    watching.enter_context(watch)
                _locust(url, name, seconds, Path(directory) / "run")
        rows = _read(Path(directory) / "run_stats.csv")
        history = _read(Path(directory) / "run_stats_history.csv")
        failed = _read(Path(directory) / "run_failures.csv")
    return {
        "scenario": name,
        "duration_s": seconds,
        **{row["Name"]: _totals(row) for row in rows if row["Name"] != "Aggregated"},
        "failures": _counts(failed),
        "timeline": [_second(row) for row in history if row["Name"] == "Aggregated"],
        **({} if watch is None else {"cluster": [_cluster(seen) for seen in watch.seen]}),
        "machine": machine(),
    }


def draw(figures: dict[str, Any], file: Path) -> None:
    """Requests a second and latencies over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    start = figures["timeline"][0]["at"]
    at_s = [second["at"] - start for second in figures["timeline"]]
    cluster = figures.get("cluster", [])
    panels = 3 if cluster else 2
    figure, (rate, latency, *more) = pyplot.subplots(
        panels, 1, sharex=True, figsize=(8, 2.5 * panels)
    )
    for key, label in (("asked_per_s", "asked"), ("answered_per_s", "answered")):
        rate.plot(at_s, [second[key] for second in figures["timeline"]], label=label)
    rate.plot(at_s, [second["failed_per_s"] for second in figures["timeline"]], label="failed")
    rate.set_ylabel("requests / s")
    rate.set_title(f"{figures['scenario']}, {figures['machine']['cpus']} cores with the load")
    for key in _PERCENTILES:
        latency.plot(at_s, [second[key] for second in figures["timeline"]], label=key[:-3])
    latency.set_yscale("log")
    latency.set_ylabel("ms, last 10 s")
    for axes in more:
        _draw_cluster(axes, cluster)
    (rate, latency, *more)[-1].set_xlabel("seconds")
    for axes in (rate, latency, *more):
        axes.legend(ncols=3, fontsize="small")
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, dpi=80)
    pyplot.close(figure)


def _draw_cluster(axes: Any, cluster: list[dict[str, Any]]) -> None:
    seconds = [seen["at_s"] for seen in cluster]
    for stage in cluster[0]["replicas"]:
        axes.step(seconds, [seen["replicas"][stage] for seen in cluster], label=stage)
    axes.step(seconds, [seen["nodes"] for seen in cluster], "k--", label="Ray nodes")
    axes.set_ylabel("replicas, nodes")


@contextmanager
def _service(name: str, store: str, directory: Path) -> Iterator[tuple[str, Watch | None]]:
    """`marquee serve`; for the scenario of autoscaling the chart's config on Ray's autoscaler, and
    what tells its replicas and nodes."""
    if name == "autoscale":
        from bench.autoscale import PATIENT, chart_service, observe

        with (
            _redis(directory) as stores,
            chart_service(
                store,
                max_nodes=_MAX_NODES,
                downscale_delay_s=_DOWNSCALE_DELAY_S,
                environment=PATIENT | stores,
            ) as url,
        ):
            yield url, Watch(observe, every_s=1.0)
        return
    with Served(
        Path(store), directory / "state", command=marquee_serve(), environment={}
    ) as served:
        yield served.url, None


@contextmanager
def _redis(directory: Path) -> Iterator[dict[str, str]]:
    """The chart's two Redis for the service, as the settings that name them."""
    options = {
        "REDIS_URL": {"appendonly": "yes", "appendfsync": "always"},
        "REDIS_CACHE_URL": {"maxmemory": "256mb", "maxmemory-policy": "allkeys-lru"},
    }
    with ExitStack() as running:
        urls = {}
        for name, given in options.items():
            server = Valkey(directory / name.lower(), free_port(), given)
            server.start()
            running.callback(server.stop)
            urls[name] = server.url
        yield urls


def _cluster(seen: dict[str, Any]) -> dict[str, Any]:
    return {name: seen[name] for name in ("at_s", "replicas", "nodes")}


def _locust(url: str, name: str, seconds: float, prefix: Path) -> None:
    environment = {"MARQUEE_LOAD_SCENARIO": name, "MARQUEE_LOAD_DURATION_S": str(seconds)}
    command = [
        *(sys.executable, "-m", "locust", "--locustfile", str(_LOCUSTFILE), "--headless"),
        *("--host", url, "--csv", str(prefix), "--csv-full-history", "--only-summary"),
        *("--loglevel", "ERROR", "--exit-code-on-error", "0"),
    ]
    done = subprocess.run(
        command,
        # The file is found as a module of this repository wherever the command runs.
        env={**os.environ, **environment, "PYTHONPATH": str(_LOCUSTFILE.parents[1])},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise UserError(f"locust ended with status {done.returncode}: {''.join(lines[-1:])}")


def _read(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        raise UserError("locust wrote no figures: nothing was asked")
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def _totals(row: dict[str, str]) -> dict[str, Any]:
    return {
        "requests": int(row["Request Count"]),
        "failures": int(row["Failure Count"]),
        "per_s": round(float(row["Requests/s"]), 1),
        **{key: float(row[column]) for key, column in _PERCENTILES.items()},
    }


def _counts(rows: Iterable[dict[str, str]]) -> dict[str, int]:
    """How often each failure was seen, over all kinds of requests."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row["Error"]] += int(row["Occurrences"])
    return dict(counts)


def _second(row: dict[str, str]) -> dict[str, Any]:
    return {
        "at": int(row["Timestamp"]),
        "asked_per_s": int(row["User Count"]),
        "answered_per_s": round(float(row["Requests/s"]) - float(row["Failures/s"]), 1),
        "failed_per_s": round(float(row["Failures/s"]), 1),
        **{
            key: None if row[column] == "N/A" else float(row[column])
            for key, column in _PERCENTILES.items()
        },
    }
