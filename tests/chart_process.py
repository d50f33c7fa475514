"""A Ray with an autoscaler, or the chart's service on one, in a process of its own: a process can
be in one Ray only, and the tests share another.

``python -m tests.chart_process`` reads what to run as JSON from stdin, prints where it is, and ends
it when stdin is closed.
"""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

from bench.autoscale import autoscaled_ray, chart_service
from tests.scenarios import ROOT


@contextmanager
def running(**what):
    """What `main` printed: `dashboard` of a Ray, or `url` and metrics `ports` of the service."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chart_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
    )
    try:
        process.stdin.write(json.dumps(what) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, "it did not start"
        yield json.loads(line)
    finally:
        process.stdin.close()
        process.wait(timeout=90)


def main():
    what = json.loads(sys.stdin.readline())
    if "store" not in what:
        with autoscaled_ray(what["environment"], 1) as dashboard:
            _tell(dashboard=dashboard)
        return
    with chart_service(
        what["store"], max_nodes=1, downscale_delay_s=60, environment=what["environment"]
    ) as url:
        import ray

        ports = [node["MetricsExportPort"] for node in ray.nodes() if node["Alive"]]
        _tell(url=url, ports=ports)


def _tell(**where):
    print(json.dumps(where), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
