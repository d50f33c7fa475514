"""The benchmark of the preparation as a user runs it, on ten thousand events."""

import json
import os

import pytest
from typer.testing import CliRunner

from training.cli import build_app

pytestmark = pytest.mark.integration


def test_preparing_is_measured_beside_polars_in_one_document(tmp_path):
    cores = str(min(len(os.sched_getaffinity(0)), 2))
    arguments = ["bench", "prepare", "--like", "ml-1m", "--scale", "0.01", "--json"]
    arguments += ["--engines", "ray,polars", "--cpus", cores, "--folder", str(tmp_path)]
    result = CliRunner().invoke(build_app(), arguments)
    figures = json.loads(result.stdout)
    assert figures["events"] == 10_002
    for engine in ("ray", "polars"):
        for name in ("seconds", "fixed_s", "cpu_s", "peak_mb", "events_per_s"):
            assert figures[engine].get(name, 0) > 0, (name, figures[engine])
    assert set(figures["ratios"]) == {"polars"}
    assert list(figures["ray"]["stages_s"]) == ["starting", "reading", "ordering", "writing"]
    assert list(tmp_path.iterdir()) == []
