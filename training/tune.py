"""`marquee tune`: many trainings of the tower, each with other settings, and the best one's recipe.

Optuna (its tree-structured Parzen estimator) proposes settings, Ray Tune runs as many trials at
once as there are CPUs and stops those that fall behind (asynchronous successive halving). What is
compared is NDCG@10 on the VALIDATION users that choose a training's epoch; TEST is not read. The
first trial is the recipe as it was given, so that the result is never worse than that.

OUT/tune.json    what was asked, so that --resume goes on with the same
OUT/trials/      Ray Tune's state and the last checkpoint of every trial
OUT/trials.json  each trial's settings and best NDCG@10, best first
OUT/recipe.yaml  the best settings, for `marquee train --recipe`
"""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from ray import tune as ray_tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from training.data.dataset import Dataset, load
from training.data.ray_session import ray_session
from training.data.splits import VALIDATION, Split, split
from training.errors import UserError
from training.evaluate import events_where
from training.fit import Learner, TrainingData
from training.rank import divide_validation
from training.recipe import Recipe, recipe_for
from training.recipe_file import read_recipe, recipe_text
from training.train import check_recipe, training_data
from training.trial_log import TrialLog

Report = Callable[[str], None]

RECORD, RECIPE, TRIALS = "tune.json", "recipe.yaml", "trials.json"
_STATE = "trials"
_LEAST_EPOCHS = 2  # that a trial runs before it can be stopped
_KEPT_SHARE = 3  # one in so many goes on at each halving

# Ray Tune prints tables, and warns that a trial which ends an epoch a second is saved each time.
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

Distribution = optuna.distributions.BaseDistribution
SPACE: dict[str, Distribution] = {
    "learning_rate": optuna.distributions.FloatDistribution(3e-4, 5e-3, log=True),
    "dropout": optuna.distributions.FloatDistribution(0.0, 0.5),
    "id_dropout": optuna.distributions.FloatDistribution(0.0, 0.5),
    "weight_decay": optuna.distributions.FloatDistribution(0.0, 0.1),
    "average_decay": optuna.distributions.FloatDistribution(0.9, 0.999),
    "hidden": optuna.distributions.IntDistribution(64, 512, log=True),
    "batch_positions": optuna.distributions.IntDistribution(256, 8192, log=True),
}


@dataclass(frozen=True)
class TuneRequest:
    """What to tune.

    recipe: a file that trials start from; None is the protocol's own.
    at_once: trials that run at the same time, at most; None is as many as there are CPUs.
    """

    data: str | Path
    out: Path
    trials: int = 20
    protocol: str = "leave-one-out"
    k_core: int = 0
    seed: int = 0
    epochs: int | None = None
    recipe: Path | None = None
    resume: bool = False
    at_once: int | None = None


class Tuning(BaseModel):
    """tune.json: what a tuning is of; a resumed one must be of the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    fingerprint: str
    split_hash: str
    protocol: str
    k_core: int
    seed: int
    trials: int
    recipe: Recipe


@dataclass(frozen=True)
class Trial:
    """settings: what the trial changed. epochs: those it ran; fewer where it was stopped."""

    settings: dict[str, Any]
    ndcg: float
    epochs: int


def tune(request: TuneRequest, report: Report) -> list[Trial]:
    """Run the trials, write the files above and return the trials, best first.

    UserError for a request that makes no sense or a directory that cannot be gone on with.
    """
    if request.trials < 1:
        raise UserError(f"--trials {request.trials}: at least 1 is needed")
    dataset = load(request.data)
    asked, cut = _asked(request, dataset)
    tuning = _begin(request, asked)
    users = divide_validation(cut, dataset.user, tuning.recipe, tuning.seed)
    choosing = np.isin(dataset.user, users.choosing)
    validation = events_where(dataset, (cut.fold == VALIDATION) & choosing)
    data = training_data(dataset, cut, tuning.recipe, validation)
    TrialLog.listener = report
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with ray_session(_bytes(data)) as cpus:
        results = _tuner(request, tuning, data, cpus).fit()
    ended = sum(map(_ended, results))
    if ended < tuning.trials:  # Ctrl-C: Ray Tune has saved its state
        raise UserError(
            f"{request.out} was stopped after {ended} of {tuning.trials} trials: "
            f"add --resume to go on"
        )
    trials = _ordered(results)
    if not trials:
        raise UserError(f"no trial of {request.out} got through an epoch: see {request.out}/trials")
    _write(request.out, tuning.recipe, trials)
    return trials


def _asked(request: TuneRequest, dataset: Dataset) -> tuple[Tuning, Split]:
    recipe = (
        read_recipe(request.recipe, request.protocol)
        if request.recipe
        else recipe_for(request.protocol)
    )
    if request.epochs is not None:
        recipe = Recipe.model_validate(recipe.model_dump() | {"epochs": max(request.epochs, 1)})
    check_recipe(recipe, dataset)
    cut = split(dataset, request.protocol, k_core=request.k_core, seed=request.seed)
    tuning = Tuning(
        fingerprint=dataset.fingerprint,
        split_hash=cut.hash,
        protocol=request.protocol,
        k_core=request.k_core,
        seed=request.seed,
        trials=request.trials,
        recipe=recipe,
    )
    return tuning, cut


def _begin(request: TuneRequest, asked: Tuning) -> Tuning:
    """Make the directory, or see that it holds the same tuning."""
    file = request.out / RECORD
    if not request.resume:
        if request.out.exists() and (not request.out.is_dir() or any(request.out.iterdir())):
            hint = "add --resume to go on with it, or " if file.exists() else ""
            raise UserError(
                f"{request.out} exists and is not empty: {hint}choose another directory"
            )
        try:
            request.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make {request.out} ({error.strerror})") from error
        file.write_text(asked.model_dump_json(indent=2) + "\n", "utf-8")
        return asked
    try:
        begun = Tuning.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(f"{request.out} holds no tuning: leave out --resume") from error
    for name in Tuning.model_fields:
        was = getattr(begun, name)
        if was != getattr(asked, name):
            shown = f" ({was})" if isinstance(was, int | str) else ""
            raise UserError(
                f"{request.out} was begun with another {name}{shown}: "
                "use the same, or another --out"
            )
    return begun


def _tuner(request: TuneRequest, tuning: Tuning, data: TrainingData, cpus: int) -> ray_tune.Tuner:
    """Of trials that begin, or of those that are gone on with."""
    storage = (request.out / _STATE).absolute()
    setup = {"recipe": tuning.recipe, "data": data, "seed": tuning.seed}
    trainable = ray_tune.with_resources(
        ray_tune.with_parameters(run_trial, setup=setup), {"cpu": 1}
    )
    experiment = str(storage / _STATE)
    if request.resume and ray_tune.Tuner.can_restore(experiment):
        return ray_tune.Tuner.restore(
            experiment, trainable, resume_unfinished=True, restart_errored=True
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    epochs = tuning.recipe.epochs
    return ray_tune.Tuner(
        trainable,
        tune_config=ray_tune.TuneConfig(
            metric="ndcg",
            mode="max",
            num_samples=tuning.trials,
            max_concurrent_trials=min(request.at_once or cpus, cpus),
            reuse_actors=True,
            search_alg=OptunaSearch(
                SPACE,
                metric="ndcg",
                mode="max",
                points_to_evaluate=[start(tuning.recipe)],
                seed=tuning.seed,
            ),
            scheduler=ASHAScheduler(
                max_t=epochs,
                grace_period=min(_LEAST_EPOCHS, epochs),
                reduction_factor=_KEPT_SHARE,
            ),
        ),
        run_config=ray_tune.RunConfig(
            name=_STATE,
            storage_path=str(storage),
            callbacks=[TrialLog(request.out.name)],
            checkpoint_config=ray_tune.CheckpointConfig(num_to_keep=1),
            verbose=0,
        ),
    )


def start(recipe: Recipe) -> dict[str, Any]:
    """The recipe's own place in SPACE, moved to its border where it lies outside."""
    return {
        name: min(max(getattr(recipe, name), space.low), space.high)
        for name, space in SPACE.items()
    }


def run_trial(config: dict[str, Any], setup: dict[str, Any]) -> None:
    """One trial, on one CPU: epochs until they are done or stop getting better."""
    torch.set_num_threads(1)
    recipe = Recipe.model_validate(setup["recipe"].model_dump() | config)
    learner = Learner(recipe, setup["data"], seed=setup["seed"])
    epochs: list[dict[str, Any]] = []
    if checkpoint := ray_tune.get_checkpoint():
        with checkpoint.as_directory() as directory:
            epochs = learner.load(Path(directory))
    while not finished([epoch["ndcg"] for epoch in epochs], recipe):
        loss = learner.run_epoch(len(epochs))
        epochs.append({"epoch": len(epochs) + 1, "loss": loss, "ndcg": learner.validate()})
        with tempfile.TemporaryDirectory() as directory:
            learner.save(Path(directory), epochs)
            ray_tune.report(epochs[-1], checkpoint=ray_tune.Checkpoint.from_directory(directory))


def finished(ndcg: list[float], recipe: Recipe) -> bool:
    """Whether all epochs have run, or the last `patience` of them brought nothing better."""
    if len(ndcg) >= recipe.epochs:
        return True
    return bool(ndcg) and len(ndcg) - 1 - ndcg.index(max(ndcg)) >= recipe.patience


def _ended(result: ray_tune.Result) -> bool:
    """Whether a trial came to its end; Ray Tune counts those that Ctrl-C cut off as terminated."""
    return result.error is not None or bool((result.metrics or {}).get("done"))


def _ordered(results: ray_tune.ResultGrid) -> list[Trial]:
    """Trials that ran at all, best first."""
    trials = []
    for result in results:
        history = result.metrics_dataframe
        if history is not None and len(history):
            settings = {name: (result.config or {})[name] for name in SPACE}
            trials.append(Trial(settings, float(history["ndcg"].max()), len(history)))
    return sorted(trials, key=lambda trial: -trial.ndcg)


def _write(out: Path, base: Recipe, trials: list[Trial]) -> None:
    """trials.json and recipe.yaml, each replaced as a whole."""
    best = Recipe.model_validate(base.model_dump() | trials[0].settings)
    contents = {
        TRIALS: json.dumps([vars(trial) for trial in trials], indent=1) + "\n",
        RECIPE: recipe_text(best),
    }
    for name, text in contents.items():
        staging = out / f".{name}.new"
        staging.write_text(text, "utf-8")
        staging.replace(out / name)


def _bytes(data: TrainingData) -> int:
    columns = (data.train.user, data.train.item, data.item_features)
    return sum(array.nbytes for array in columns)
