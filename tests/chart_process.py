"""A Ray with an autoscaler, or the chart's service on one, in a process of its own: a process can
be in one Ray only, and the tests share another.

``python -m tests.chart_process`` reads what to run as JSON from stdin and prints where it is. Each
further line is a load to put on the service, answered with what happened; it ends with stdin.
"""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

from bench.autoscale import PATIENT, autoscaled_ray, chart_service, observe
from bench.ramp import ramp
from tests.scenarios import ROOT


class Running:
    """What `main` printed: `dashboard` of a Ray, or `url` and metrics `ports` of the service."""

    def __init__(self, process, where):
        self._process = process
        self.where = where

    def __getitem__(self, name):
        return self.where[name]

    def load(self, clients, step_s):
        """bench.ramp's result, seen from inside that Ray."""
        return _ask(self._process, clients=clients, step_s=step_s)


@contextmanager
def running(**what):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chart_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
    )
    try:
        yield Running(process, _ask(process, **what))
    finally:
        process.stdin.close()
        process.wait(timeout=90)


def _ask(process, **what):
    process.stdin.write(json.dumps(what) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    assert line, "it ended"
    return json.loads(line)


def main():
    what = json.loads(sys.stdin.readline())
    if "store" not in what:
        with autoscaled_ray(what["environment"], 1) as dashboard:
            _tell(dashboard=dashboard)
            sys.stdin.read()
        return
    with chart_service(
        what["store"],
        max_nodes=what["max_nodes"],
        downscale_delay_s=what["downscale_delay_s"],
        environment=PATIENT | what["environment"],
    ) as url:
        import ray

        ports = [node["MetricsExportPort"] for node in ray.nodes() if node["Alive"]]
        _tell(url=url, ports=ports)
        for line in sys.stdin:
            asked = json.loads(line)
            _tell(**ramp(url, asked["clients"], asked["step_s"], observe))


def _tell(**where):
    print(json.dumps(where), flush=True)


if __name__ == "__main__":
    main()
