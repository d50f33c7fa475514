"""`marquee train` on real Ray Train workers, killed and resumed, and what it leaves behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from tests.walks import write_walks
from training.baselines import BASELINES
from training.bundle_writer import MODEL_FILES
from training.cli import build_app
from training.data.dataset import load
from training.evaluate import Known, TowerScorer, evaluate
from training.run import Run
from training.train import Request, train


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_walks(tmp_path_factory.mktemp("walks") / "data")


@pytest.fixture(scope="module", autouse=True)
def tracking(tmp_path_factory):
    """An MLflow database of this module's own."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    os.environ["MLFLOW_TRACKING_URI"] = uri
    yield uri
    if before is None:
        del os.environ["MLFLOW_TRACKING_URI"]
    else:
        os.environ["MLFLOW_TRACKING_URI"] = before


@pytest.fixture(scope="module")
def trained(data, ray_local, tmp_path_factory):
    """A finished run of two workers: its directory, its record and the lines it reported."""
    out, lines = tmp_path_factory.mktemp("trained") / "run", []
    run = train(Request(data=data, out=out, workers=2, epochs=5, seed=3), lines.append)
    return out, run, lines


def test_two_workers_learn_what_popularity_cannot_know(data, trained):
    out, run, _ = trained
    dataset = load(data)
    cut = run.split(dataset)
    known = Known.of(dataset, cut)
    models = {
        "two-tower": TowerScorer(out / "model", known),
        "popularity": BASELINES["popularity"](known.events, 0),
    }
    metrics = evaluate(dataset, cut, models).metrics
    assert metrics["two-tower"]["ndcg@10"].low > metrics["popularity"]["ndcg@10"].high + 0.1


def test_a_finished_run_is_on_disk_as_it_was_returned(trained):
    out, run, lines = trained
    assert Run.read(out) == run and run.status == "finished"
    assert all((out / "model" / name).is_file() for name in MODEL_FILES)
    assert run.workers == 2 and run.ranker["kind"] in ("lambdamart", "tower-order")
    assert [epoch.epoch for epoch in run.epochs] == list(range(1, len(run.epochs) + 1))
    assert run.epochs[run.best_epoch - 1].ndcg == max(epoch.ndcg for epoch in run.epochs)
    assert sum(line.startswith("epoch") for line in lines) == len(run.epochs)
    assert not list(out.glob(".*.new"))


def test_mlflow_holds_parameters_and_every_epoch(trained, tracking):
    from mlflow import MlflowClient

    _, run, _ = trained
    client = MlflowClient(tracking)
    tracked = client.get_run(run.mlflow_run_id)
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["seed"] == "3"
    assert tracked.data.params["learning_rate"] == str(run.recipe.learning_rate)
    for name in ("loss", "ndcg_at_10"):
        assert len(client.get_metric_history(run.mlflow_run_id, name)) == len(run.epochs)


def test_evaluate_judges_tower_and_ranker_of_the_run(trained):
    out, run, _ = trained
    result = CliRunner().invoke(
        build_app(), ["evaluate", str(out), "--models", "two-tower,ranked", "--json"]
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["split_hash"] == run.split_hash
    assert set(report["models"]) == {"two-tower", "ranked"}
    assert (out / "evaluation.json").exists()


def test_more_epochs_go_on_where_a_finished_run_ended_even_after_it_was_moved(
    data, trained, tmp_path
):
    out, run, _ = trained
    shutil.copytree(out, tmp_path / "moved")
    lines = []
    request = Request(data=data, out=tmp_path / "moved", epochs=6, resume=True)
    longer = train(request, lines.append)
    assert longer.epochs[:5] == run.epochs and len(longer.epochs) == 6
    assert sum(line.startswith("epoch") for line in lines) == 1


def test_a_killed_run_goes_on_from_its_checkpoint_as_if_nothing_had_happened(
    data, ray_local, trained, tmp_path
):
    _, whole, _ = trained
    out, recipe = tmp_path / "run", tmp_path / "recipe.yaml"
    recipe.write_text("patience: 400")
    arguments = [str(data), "--out", str(out), "--workers", "2", "--seed", "3"]
    # More epochs than it can get through before it is killed, however late that is.
    kill_after_a_checkpoint([*arguments, "--epochs", "400", "--recipe", str(recipe)], out)
    assert Run.read(out).status == "running" and not (out / "model").exists()
    lines = []
    resumed = train(Request(data=data, out=out, workers=2, epochs=6, resume=True), lines.append)
    repeated = sum(line.startswith("epoch") for line in lines)
    assert repeated < len(resumed.epochs)
    expected = [(epoch.epoch, epoch.loss, epoch.ndcg) for epoch in whole.epochs]
    ended = [(epoch.epoch, epoch.loss, epoch.ndcg) for epoch in resumed.epochs[: len(expected)]]
    assert np.allclose(ended, expected, rtol=1e-4)
    assert resumed.status == "finished" and (out / "model" / "ranker.txt").exists()


def kill_after_a_checkpoint(arguments: list[str], out: Path) -> None:
    """Start `marquee train` with a Ray of its own and kill it once a checkpoint is recorded.

    Its Ray ends with it, but not at once; until then it could still write checkpoints. So whatever
    it started, known by a mark in the environment, is killed and waited for.
    """
    mark = f"MARQUEE_TEST_RUN={uuid.uuid4().hex}"
    process = subprocess.Popen(
        [sys.executable, "-m", "training.cli", "train", *arguments],
        env=os.environ | dict([mark.split("=")]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    snapshot = out / CHECKPOINT_SNAPSHOT
    try:
        while not snapshot.exists():
            assert process.poll() is None, "training ended before it could be killed"
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
        while left := marked(mark):
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


def marked(mark: str) -> list[int]:
    """The processes that have `mark` in their environment and still run."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            name, value = mark.split("=")
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and process.environ().get(name) == value:
                found.append(process.pid)
    return found


CHECKPOINT_SNAPSHOT = "checkpoints/towers/checkpoint_manager_snapshot.json"
