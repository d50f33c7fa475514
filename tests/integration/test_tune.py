"""`marquee tune` on a real Ray Tune, stopped by Ctrl-C and gone on with."""

import json
import os
import signal

import pytest
from mlflow import MlflowClient

from tests.walks import write_walks
from training.errors import UserError
from training.recipe import Recipe
from training.recipe_file import read_recipe
from training.tune import SPACE, TuneRequest, start, tune

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_local")]


def test_a_stopped_tuning_goes_on_and_leaves_a_recipe_that_train_takes(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    data, out = write_walks(tmp_path / "data"), tmp_path / "tuning"
    asked = {"data": data, "out": out, "trials": 3, "epochs": 2, "at_once": 2}
    lines = []

    def stop(line):
        lines.append(line)
        if len(lines) == 1:  # Ctrl-C, once
            os.kill(os.getpid(), signal.SIGINT)

    # Of the two trials at work, the second may end before the signal is seen.
    with pytest.raises(UserError, match=r"after [12] of 3 trials: add --resume"):
        tune(TuneRequest(**asked), stop)
    assert len(lines) in (1, 2) and not (out / "recipe.yaml").exists()
    trials = tune(TuneRequest(**asked, resume=True), lines.append)
    assert len(trials) == 3 and [line.split()[1] for line in lines] == ["1", "2", "3"]
    assert trials[0].ndcg == max(trial.ndcg for trial in trials)
    assert json.loads((out / "trials.json").read_text()) == [vars(trial) for trial in trials]
    best = read_recipe(out / "recipe.yaml", "leave-one-out")
    assert {name: getattr(best, name) for name in SPACE} == pytest.approx(trials[0].settings)
    assert start(Recipe()) in [pytest.approx(trial.settings) for trial in trials]
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("marquee").experiment_id
    runs = client.search_runs([experiment])
    assert len(runs) == 3 and {run.info.status for run in runs} == {"FINISHED"}
    assert max(run.data.metrics["best_ndcg_at_10"] for run in runs) == trials[0].ndcg
