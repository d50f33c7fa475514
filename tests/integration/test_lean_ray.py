"""What a Ray consists of that a preparation starts for itself."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

LEAN_RUN = """
import os, pickle, sys
from pathlib import Path
import pyarrow as pa
from training.data.ray_session import ray_session
from training.data.tasks import run_tasks

def double(batch, plan):
    return pa.table({"result": [pickle.dumps(plan * n) for n in batch["n"].to_pylist()]})

with ray_session(2**28, 2, lean=True) as cpus:
    print(cpus, sorted(run_tasks(double, [{"n": n} for n in range(4)], 2)))
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with_parents = [stat.parent]
        try:
            while with_parents[-1].name != "1":
                fields = (with_parents[-1] / "stat").read_text().rpartition(")")[2].split()
                with_parents.append(Path("/proc") / fields[1])
                if fields[1] == str(os.getpid()):
                    print((stat.parent / "cmdline").read_text().replace(chr(0), " "))
                    break
        except OSError:
            pass
"""


def test_a_lean_ray_runs_tasks_and_nothing_that_watches_or_scales_a_cluster():
    run = subprocess.run(
        [sys.executable, "-c", LEAN_RUN], capture_output=True, text=True, timeout=120, check=True
    )
    first, *processes = run.stdout.splitlines()
    assert first == "2 [0, 2, 4, 6]"
    named = "\n".join(processes)
    assert "gcs_server" in named and "raylet" in named
    for unwanted in ("dashboard.py", "monitor.py", "_StatsActor", "AutoscalingCoordinator"):
        assert unwanted not in named
