"""Measures `marquee prepare` beside other engines that do the same work, one after another.

Every engine runs in a process of its own, from a cold start to the last file written. Its memory
is the largest sum, over the process and all it started, of proportional resident memory (PSS):
what they share, such as Ray's object store, counts once. Pages that are only cached files of the
operating system do not count, for any engine. Processor time is that of all these processes: it
says what an engine costs where other programs are running, which its seconds cannot.

Every engine also prepares a thousand events: that is what it costs to start and to end, `fixed_s`.
The events a second beyond it, `further_events_per_s`, say how the time grows.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

from bench.prepare_engines import ENGINES
from training.data.lookalike import write_lookalike
from training.errors import UserError

Report = Callable[[str], None]
SAMPLE_S = 0.25
FEW = ("ml-1m", 0.001)  # a data set so small that only what is fixed takes time
NEEDS = {"ray": "ray", "polars": "polars", "pyspark": "pyspark"}


def bench_prepare(
    like: str,
    *,
    scale: float,
    engines: tuple[str, ...],
    cpus: tuple[int, ...],
    folder: Path,
    report: Report,
) -> dict[str, Any]:
    """Figures of all engines that are installed, on one data set made for it in `folder`.

    scale: how many times the users and events of the published data set. cpus: cores for each;
        of several numbers the greatest is for all engines, the others for Marquee alone.
    """
    *fewer, most = sorted(set(cpus))
    if most > len(os.sched_getaffinity(0)):
        raise UserError(f"--cpus {most}: there are only {len(os.sched_getaffinity(0))} here")
    unknown = [engine for engine in engines if engine not in ENGINES]
    if unknown:
        raise UserError(f"--engines {unknown[0]!r} is unknown: choose of {', '.join(ENGINES)}")
    with TemporaryDirectory(dir=folder, prefix="bench-prepare-") as work:
        raw = Path(work) / "raw"
        report(f"Making events like {like}")
        began = time.perf_counter()
        shape = write_lookalike(raw, like, scale=scale)
        figures: dict[str, Any] = {
            "like": like,
            "events": shape.events,
            "users": shape.users,
            "items": shape.items,
            "csv_mb": round((raw / "ratings.csv").stat().st_size / 1e6),
            "cpus": most,
            "load_before": round(os.getloadavg()[0], 2),
            "synth": {"seconds": round(time.perf_counter() - began, 1)},
        }
        few = Path(work) / "few"
        write_lookalike(few, FEW[0], scale=FEW[1])

        def measure(engine: str, count: int) -> dict[str, Any]:
            out = Path(work) / engine
            cell = _measure(engine, raw, out, count, shape.events)
            shutil.rmtree(out, ignore_errors=True)
            fixed_s = _measure(engine, few, out, count, 1).get("seconds", 0.0)
            shutil.rmtree(out, ignore_errors=True)
            return cell | growth(cell, fixed_s, shape.events)

        for engine in engines:
            if importlib.util.find_spec(NEEDS[engine]) is None:
                continue
            report(f"Preparing {shape.events:,} events with {engine}")
            figures[engine] = measure(engine, most)
            report(f"{engine}: {figures[engine]}")
        for count in fewer:
            report(f"Preparing {shape.events:,} events on {count} of {most} cores")
            figures[f"ray_cpus_{count}"] = measure("ray", count)
    mine = figures.get("ray", {}).get("seconds")
    figures["ratios"] = {
        engine: round(mine / figures[engine]["seconds"], 2)
        for engine in engines
        if engine != "ray" and mine and figures.get(engine, {}).get("seconds")
    }
    figures["speedup"] = {
        str(count): round(figures[f"ray_cpus_{count}"]["seconds"] / mine, 2)
        for count in fewer
        if mine and figures[f"ray_cpus_{count}"].get("seconds")
    }
    return figures


def growth(cell: dict[str, Any], fixed_s: float, events: int) -> dict[str, Any]:
    """What is fixed of a measured time, and how many events a second the rest of it takes."""
    beyond_s = cell.get("seconds", 0.0) - fixed_s
    if "error" in cell or beyond_s <= 0:  # so few events that their time is lost in the noise
        return {"fixed_s": fixed_s, "further_events_per_s": None}
    return {"fixed_s": fixed_s, "further_events_per_s": round(events / beyond_s)}


def _measure(engine: str, raw: Path, out: Path, cpus: int, events: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.prepare_engines", engine, str(raw), str(out), str(cpus)]
    limits = {"RAY_AUTH_MODE": "disabled", "POLARS_MAX_THREADS": str(cpus)}
    cores = sorted(os.sched_getaffinity(0))[:cpus]
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=os.environ | limits,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    with _Watch(process.pid) as watch:
        output, errors = process.communicate()
    seconds = time.perf_counter() - began
    if process.returncode:
        last = (errors.strip().splitlines() or ["no message"])[-1]
        return {"error": f"exit {process.returncode}: {last[:300]}", "peak_mb": watch.peak_mb}
    cell = {
        "seconds": round(seconds, 2),
        "events_per_s": round(events / seconds),
        "cpu_s": watch.cpu_s,
        "peak_mb": watch.peak_mb,
        "output_mb": round(sum(f.stat().st_size for f in out.rglob("*") if f.is_file()) / 1e6),
    }
    stages: dict[str, float] | None = json.loads(output.strip().splitlines()[-1])
    return cell if stages is None else cell | {"stages_s": stages}


class _Watch:
    """Watches a process and its descendants while the block runs."""

    def __init__(self, pid: int) -> None:
        self._pid, self._ended, self._bytes = pid, Event(), 0
        self._cpu_s: dict[int, float] = {}  # of each process, when it was last seen
        self._watcher = Thread(target=self._watch, daemon=True)

    @property
    def peak_mb(self) -> int:
        """The peak of resident memory, in millions of bytes."""
        return round(self._bytes / 1e6)

    @property
    def cpu_s(self) -> float:
        """Processor time of all, but for what each spent after it was last seen."""
        return round(sum(self._cpu_s.values()), 1)

    def __enter__(self) -> "_Watch":
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watcher.join()

    def _watch(self) -> None:
        ended = False
        while not ended:
            pids = _descendants(self._pid)
            self._bytes = max(self._bytes, sum(map(_pss_bytes, pids)))
            for pid in pids:
                self._cpu_s[pid] = max(self._cpu_s.get(pid, 0.0), _cpu_s(pid))
            ended = self._ended.wait(SAMPLE_S)


def _descendants(pid: int) -> list[int]:
    """The process and all that it started, directly or not."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def _pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
