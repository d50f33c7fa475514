"""`ray job submit` of a training, as docs/operations.md has it, to a Ray that is not this machine's
default one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chart_process import running
from tests.scenarios import ROOT
from training.model.store import BundleStore

pytestmark = pytest.mark.integration


def test_a_submitted_training_fills_the_store(tmp_path):
    environment = {
        "PYTHONPATH": str(ROOT),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
    }
    store = tmp_path / "store"
    sizes = ["--users", "150", "--items", "150", "--events", "4000", "--epochs", "1"]
    entrypoint = ["marquee", "retrain", "--store", str(store), "--work", str(tmp_path / "work")]
    programs = Path(sys.executable).parent
    with running(environment=environment) as ray:
        submit = [str(programs / "ray"), "job", "submit", "--address", ray["dashboard"]]
        submit += ["--runtime-env-json", json.dumps({"env_vars": environment})]
        done = subprocess.run(
            [*submit, "--", str(programs / entrypoint[0]), *entrypoint[1:], *sizes],
            env=os.environ | {"RAY_AUTH_MODE": "disabled"},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert BundleStore.open(str(store)).production() == "1"
