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

import boto3
import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from tests.lost_node import train_workers
from tests.walks import write_walks
from training.baselines import BASELINES
from training.bundle_writer import MODEL_FILES
from training.cli import build_app
from training.data.dataset import load
from training.deep_ranking import fit_deep, fit_lists
from training.evaluate import Known, TowerScorer, evaluate
from training.model.ranking import RANKER_FEATURES
from training.recipe import Recipe
from training.run import Run
from training.train import Request, train

# Without dropout nothing that is drawn depends on how many workers there are.
RECIPE = {"dropout": 0.0, "id_dropout": 0.0, "patience": 400}
EPOCHS, LONGER = 4, 12


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_walks(tmp_path_factory.mktemp("walks") / "data")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe file."""
    file = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    file.write_text(json.dumps(RECIPE))
    return file


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
def bucket(s3_endpoint):
    bucket = boto3.resource("s3").Bucket("models")
    bucket.create()
    return bucket


@pytest.fixture(scope="module")
def trained(data, recipe, ray_local, bucket, tmp_path_factory):
    """A finished run of two workers: its directory, its record and the lines it reported.

    Its checkpoints are on S3, as moto's server speaks it.
    """
    out, lines = tmp_path_factory.mktemp("trained") / "run", []
    request = Request(
        data=data,
        out=out,
        workers=2,
        epochs=EPOCHS,
        seed=3,
        recipe=recipe,
        checkpoints="s3://models/checkpoints/",
    )
    return out, train(request, lines.append), lines


@pytest.fixture(scope="module")
def longer(data, trained, tmp_path_factory):
    """The finished run, moved, gone on with by four workers of whom one is killed on the way.

    Two would be enough to go on with, were there no room for another.
    """
    out, killed = tmp_path_factory.mktemp("moved") / "run", []
    shutil.copytree(trained[0], out)

    def report(line):
        if line.startswith("epoch") and not killed:
            killed.append(train_workers()[-1])
            os.kill(killed[0], signal.SIGKILL)

    request = Request(
        data=data, out=out, workers=4, min_workers=2, epochs=LONGER, resume=True, max_failures=1
    )
    run = train(request, report)
    assert killed
    return run


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


def test_checkpoints_are_kept_where_they_were_asked_for(trained, bucket):
    out, run, _ = trained
    assert run.checkpoints.startswith(f"s3://models/checkpoints/{out.name}-")
    prefix = run.checkpoints.removeprefix("s3://models/")
    names = [found.key.removeprefix(prefix) for found in bucket.objects.filter(Prefix=prefix)]
    assert any(name.endswith("/learner.pt") for name in names)
    assert not (out / "checkpoints").exists()


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


def test_more_epochs_go_on_where_a_finished_run_ended_even_when_a_worker_is_lost(trained, longer):
    assert longer.epochs[:EPOCHS] == trained[1].epochs
    assert [epoch.epoch for epoch in longer.epochs] == list(range(1, LONGER + 1))
    assert longer.status == "finished" and longer.workers == 4


def test_a_killed_run_goes_on_from_its_checkpoint_as_if_nothing_had_happened(
    data, recipe, ray_local, longer, tmp_path
):
    out = tmp_path / "run"
    arguments = [str(data), "--out", str(out), "--workers", "1", "--seed", "3"]
    # More epochs than it can get through before it is killed, however late that is.
    kill_after_a_checkpoint([*arguments, "--epochs", "400", "--recipe", str(recipe)], out)
    assert Run.read(out).status == "running" and not (out / "model").exists()
    snapshot = out / CHECKPOINT_SNAPSHOT
    snapshot.write_text(snapshot.read_text()[:40])  # as if it had come while Ray was writing it
    lines = []
    resumed = train(
        Request(data=data, out=out, workers=1, epochs=LONGER, resume=True), lines.append
    )
    repeated = sum(line.startswith("epoch") for line in lines)
    assert repeated < len(resumed.epochs)
    assert_same_curve(resumed, longer)
    assert resumed.status == "finished" and (out / "model" / "ranker.json").exists()


def test_when_a_node_is_lost_the_workers_that_are_left_go_on(data, recipe, longer, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "tests.lost_node", data, out, recipe, str(LONGER), "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    workers = json.loads(done.stdout.splitlines()[-1])
    assert (workers[0], workers[-1]) == (2, 1)
    assert_same_curve(Run.read(out), longer)


def test_ray_train_fits_the_ranker_that_one_process_fits(ray_local):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 10, len(RANKER_FEATURES))).astype(np.float32)
    hits = rows[:, :, 2] > 1
    recipe = Recipe(ranker="deepfm", ranker_epochs=2)
    (alone, shared) = (
        fit_lists((rows, hits), recipe, 0),
        *fit_deep([(rows, hits)], recipe, 0, workers=2, storage=None),
    )
    flat = rows.reshape(-1, rows.shape[2])
    scores = [model.predict(flat) for model in (shared, alone)]
    # A loss over lists leaves the level of all scores to rounding.
    np.testing.assert_allclose(*(some - some.mean() for some in scores), atol=1e-4)


def assert_same_curve(run, other):
    """One was trained by one worker, or by two and then one, the other by two and then by four.

    Their products in bfloat16 are summed up in another order.
    """
    curves = [
        [(epoch.epoch, epoch.loss, epoch.ndcg) for epoch in some.epochs[:LONGER]]
        for some in (run, other)
    ]
    assert np.allclose(*curves, rtol=0.05, atol=0.02)


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
