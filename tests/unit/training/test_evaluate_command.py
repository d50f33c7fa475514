import json
import re

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import typer
from typer.testing import CliRunner

from tests.datasets import random_dataset
from training.baseline_tuning import FACTORS
from training.data.dataset import EVENT_SCHEMA
from training.data.splits import split
from training.errors import UserError
from training.evaluate_command import register
from training.model.ranking import RANKER_FEATURES
from training.model.two_tower import DIMENSION, TowerConfig, UserTower
from training.recipe import Recipe
from training.run import Run


@pytest.fixture
def data_dir(tmp_path):
    """A prepared directory of a random data set."""
    data, root = random_dataset(), tmp_path / "data"
    (root / "events" / "bucket=0000").mkdir(parents=True)
    columns = [data.user, data.item, data.rating, data.timestamp]
    events = pa.table(columns, schema=EVENT_SCHEMA)
    pq.write_table(events, root / "events" / "bucket=0000" / "part.parquet")
    pq.write_table(data.users, root / "users.parquet")
    pq.write_table(data.items, root / "items.parquet")
    (root / "statistics.json").write_text(json.dumps(data.statistics))
    return root


@pytest.fixture
def run_dir(tmp_path, data_dir):
    """A run on `data_dir` with random weights."""
    root = tmp_path / "run"
    (root / "model").mkdir(parents=True)
    torch.manual_seed(0)
    tower = UserTower(TowerConfig()).eval()
    tower.item_vectors = torch.randn(30, DIMENSION)
    tower.save(root / "model")
    rng = np.random.default_rng(0)
    rows = lightgbm.Dataset(rng.random((100, len(RANKER_FEATURES))), rng.random(100))
    lightgbm.train({"verbosity": -1}, rows, 2).save_model(root / "model" / "ranker.txt")
    (root / "model" / "ranker.json").write_text(json.dumps({"features": RANKER_FEATURES}))
    Run(
        status="finished",
        data=str(data_dir),
        fingerprint="in-memory",
        protocol="user-temporal",
        k_core=0,
        seed=3,
        split_hash=split(random_dataset(), "user-temporal", seed=3).hash,
        workers=1,
        recipe=Recipe(candidates=100),
        ranker={
            "kind": "lambdamart",
            "users": 1200,
            "ndcg@10_gain": {"value": 0.004, "low": 0.001, "high": 0.007},
            "auc": 0.71,
            "log_loss": 0.0512,
        },
    ).write(root)
    return root


def run(*arguments):
    app = typer.Typer()
    app.callback()(lambda: None)  # so that `evaluate` is a sub-command
    register(app)
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def refused(message, *arguments):
    result = run(*arguments)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
    assert result.stdout == ""


def test_a_runs_models_are_judged_beside_the_baselines_and_the_run_keeps_the_result(
    run_dir, tmp_path
):
    page = tmp_path / "page.html"
    result = run(run_dir, "--json", "--k", "5", "--report", page)
    document = json.loads(result.stdout)
    models = ["two-tower", "ranked", "random", "popularity", "recent-popularity", "ease", "ials"]
    assert list(document["models"]) == [*models, "bpr"]
    assert document["tuned"]["ials"]["factors"] in FACTORS
    assert "newness" in {part["by"] for part in document["slices"]["two-tower"]}
    text = page.read_text()
    assert text.count("<svg") >= 7 and document["split_hash"] in text
    assert document["ranker"]["auc"] == 0.71
    assert "+0.0040 (+0.0010 to +0.0070), AUC 0.7100, log loss 0.05120" in text
    assert not re.findall(r"""(?:src|href)=["']http""", text)
    assert document["protocol"] == "user-temporal"
    assert json.loads((run_dir / "evaluation.json").read_text()) == document


def test_data_is_judged_under_the_protocol_asked_for(data_dir):
    result = run(data_dir, "--protocol", "user-random", "--models", "popularity", "--json")
    document = json.loads(result.stdout)
    assert document["protocol"] == "user-random"
    assert set(document["models"]) == {"popularity"}
    assert "recall_min@20" in document["models"]["popularity"]


def test_the_table_has_a_row_for_each_model_and_the_splits_hash(data_dir, tmp_path):
    result = run(data_dir, "--models", "popularity,ease", "--k", "3", "--dump", tmp_path / "dump")
    rows = result.stdout.splitlines()
    assert [row.split()[0] for row in rows[1:]] == ["model", "popularity", "ease", "split"]
    assert sorted(path.name for path in (tmp_path / "dump").iterdir()) == [
        "holdout.parquet",
        "recommendations.parquet",
        "train.parquet",
    ]


def test_a_run_is_not_judged_on_events_that_it_was_trained_on(run_dir):
    refused("trained under user-temporal", run_dir, "--protocol", "leave-one-out")
    Run.read(run_dir).updated(split_hash="other").write(run_dir)
    refused("train a new run", run_dir)
    assert not (run_dir / "evaluation.json").exists()


def test_an_unfinished_run_is_refused_with_how_to_finish_it(run_dir):
    Run.read(run_dir).updated(status="running").write(run_dir)
    refused("--resume", run_dir)


def test_bad_input_is_refused_in_one_line(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("MARQUEE_RECTOOLS", str(tmp_path / "none"))
    refused("not a prepared data set", tmp_path / "nothing")
    refused("unknown protocol", data_dir, "--protocol", "random")
    refused("unknown model 'itemknn'", data_dir, "--models", "ease,itemknn")
    for lengths in ("0", "-5", "ten", "5,,10"):
        refused("--k", data_dir, "--k", lengths)
    refused("at most", data_dir, "--k", "5,99999999999")
    assert "--seed" in run(data_dir, "--seed", "-1").stderr
    refused("make rectools", data_dir, "--models", "sasrec")
    refused("cannot write", data_dir, "--models", "random", "--report", tmp_path / "no" / "a.html")
    refused("not written by this command", data_dir, "--dump", data_dir)
