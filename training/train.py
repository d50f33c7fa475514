"""`marquee train`: both towers on Ray Train workers, then the ranker, into a run directory."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from training.baselines import Events
from training.blend import Blend, blend_towers, choose_blend
from training.checkpoints import Storage
from training.data.dataset import Dataset, load
from training.data.locations import S3
from training.data.splits import TRAIN, VALIDATION, Split, split
from training.errors import UserError
from training.evaluate import Known, events_where, fold_events
from training.fit import TrainingData
from training.inputs import item_tower_features, user_tower_features
from training.model.blend import Tower
from training.model.two_tower import UserTower
from training.rank import Ranker, divide_validation, fit_ranker
from training.recipe import Recipe, recipe_for
from training.recipe_file import read_recipe
from training.run import CHECKPOINTS, MODEL, RECORD, Epoch, Run
from training.towers import fit_towers
from training.tracking import TrackedRun, tracked_run
from training.workers import Workers, choose_workers

Report = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What to train; None leaves a choice to the recipe, or to the run that is gone on with.

    workers, min_workers, max_failures, gpu: as `choose_workers` has them. checkpoints: a directory
    or s3:// address that all nodes reach; None is the run's own.
    """

    data: str | Path
    out: Path
    workers: int | None = None
    protocol: str | None = None
    k_core: int | None = None
    seed: int | None = None
    epochs: int | None = None
    resume: bool = False
    recipe: Path | None = None
    min_workers: int | None = None
    max_failures: int = 3
    checkpoints: str | None = None
    gpu: bool | None = None


def train(request: Request, report: Report) -> Run:
    """Train towers and ranker; `report` is told a line per step. Returns the finished run.

    UserError for a request that makes no sense, and for a run directory in use or of other data.
    After any other failure the directory has status "failed" and can be resumed.
    """
    _check(request)
    dataset = load(request.data)
    workers = choose_workers(
        request.workers, request.min_workers, request.max_failures, request.gpu, report
    )
    run = _resumed(request, dataset) if request.resume else _new(request, dataset, workers)
    cut = run.split(dataset)
    if run.status == "finished":
        report(f"{request.out} is finished already, after {len(run.epochs)} epochs")
        return run
    started = time.monotonic()
    storage = Storage.open(run.checkpoints or str((request.out / CHECKPOINTS).absolute()))
    tracked = tracked_run(request.out.name, run.mlflow_run_id)
    run = run.updated(
        status="running", workers=workers.count, gpu=workers.gpu, mlflow_run_id=tracked.run_id
    )
    try:
        run.write(request.out)
        tracked.log_params(_params(run))
        run = _train(_Work(request.out, workers, storage, tracked, report), run, dataset, cut)
    except BaseException:
        run.updated(status="failed").write(request.out)
        tracked.fail()
        raise
    run = run.updated(seconds={**run.seconds, "total": round(time.monotonic() - started, 1)})
    run.write(request.out)
    return run


def _check(request: Request) -> None:
    for name in ("workers", "min_workers", "epochs"):
        value = getattr(request, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: at least 1 is needed")
    for name in ("k_core", "seed", "max_failures"):
        value = getattr(request, name)
        if value is not None and value < 0:
            raise UserError(f"--{name.replace('_', '-')} {value}: must not be negative")
    place = request.checkpoints or ""
    if "://" in place and not place.startswith(S3):
        raise UserError(f"--checkpoints {place}: neither a directory nor s3://bucket/prefix")


def _new(request: Request, dataset: Dataset, workers: Workers) -> Run:
    """The record of a run that begins; every item is kept by default, because all are served."""
    if (request.out / RECORD).exists():
        raise UserError(f"{request.out} holds a run: add --resume to go on with it, or another out")
    if request.out.exists() and (not request.out.is_dir() or any(request.out.iterdir())):
        raise UserError(f"{request.out} exists and is not empty: choose another directory")
    protocol = request.protocol or "leave-one-out"
    recipe = recipe_for(protocol)
    if request.recipe is not None:
        recipe = read_recipe(request.recipe, protocol)
    check_recipe(recipe, dataset)
    if request.epochs is not None:
        recipe = recipe.model_copy(update={"epochs": request.epochs})
    k_core, seed = request.k_core or 0, request.seed or 0
    place = _place(request)
    cut = split(dataset, protocol, k_core=k_core, seed=seed)
    try:
        request.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {request.out} ({error.strerror}): choose another") from error
    return Run(
        status="running",
        data=dataset.address,
        fingerprint=dataset.fingerprint,
        protocol=protocol,
        k_core=k_core,
        seed=seed,
        split_hash=cut.hash,
        workers=workers.count,
        gpu=workers.gpu,
        recipe=recipe,
        checkpoints=f"{place}/{request.out.name}-{uuid4().hex[:8]}" if place else None,
    )


def _resumed(request: Request, dataset: Dataset) -> Run:
    """The record of the run to go on with; more epochs than it has open a finished run again."""
    run = Run.read(request.out)
    place = _place(request)
    if place is not None and place != (run.checkpoints or "").rpartition("/")[0]:
        raise UserError(f"--checkpoints {place}: {request.out} has its own elsewhere, leave it out")
    if request.recipe is not None:
        raise UserError(f"--recipe {request.recipe}: {request.out} goes on with its own")
    for name in ("protocol", "k_core", "seed"):
        asked, used = getattr(request, name), getattr(run, name)
        if asked not in (None, used):
            raise UserError(
                f"--{name.replace('_', '-')} {asked}: {request.out} was begun with {used}; "
                f"leave it out, or train another run"
            )
    if request.epochs is not None:
        status = "running" if request.epochs > run.recipe.epochs else run.status
        recipe = run.recipe.model_copy(update={"epochs": request.epochs})
        run = run.updated(status=status, recipe=recipe)
    return run.updated(data=dataset.address)


def _place(request: Request) -> str | None:
    """Where --checkpoints says, absolute; each run has a directory of its own in it."""
    if request.checkpoints is None or request.checkpoints.startswith(S3):
        return request.checkpoints and request.checkpoints.rstrip("/")
    return str(Path(request.checkpoints).absolute())


@dataclass(frozen=True)
class _Work:
    """Where a training happens and who is told of it."""

    out: Path
    workers: Workers
    storage: Storage
    tracked: TrackedRun
    report: Report


def _train(work: _Work, run: Run, dataset: Dataset, cut: Split) -> Run:
    """Towers, then ranker, then the model directory; returns the finished record."""
    report = work.report
    users = divide_validation(cut, dataset.user, run.recipe, run.seed)
    choosing = np.isin(dataset.user, users.choosing)
    validation = events_where(dataset, (cut.fold == VALIDATION) & choosing)
    data = training_data(dataset, cut, run.recipe, validation)

    def on_epoch(epoch: Epoch) -> None:
        report(_line(epoch, run.recipe.epochs))
        work.tracked.log_epoch(epoch.epoch, {"loss": epoch.loss, "ndcg@10": epoch.ndcg})

    started = time.monotonic()
    fitted = fit_towers(run, data, work.workers, work.storage, on_epoch, report)
    towers_s = time.monotonic() - started
    report(f"best epoch {fitted.best.epoch}" + ("; blending" if run.recipe.blend else ""))
    started = time.monotonic()
    tower, blend = _blend(fitted.tower, data, run)
    blend_s = time.monotonic() - started
    if blend is not None:
        report(blend.describe())
    report("training the ranker")
    started = time.monotonic()
    ranker = fit_ranker(
        dataset,
        cut,
        users.ranker,
        tower,
        run.recipe,
        run.seed,
        workers=run.workers,
        storage=work.storage,
    )
    ranker_s = time.monotonic() - started
    report(ranker.describe())
    if blend is not None and blend.kept:
        tower = _with_validation(fitted.tower, dataset, cut, blend, run.seed)
    _write_model(work.out, tower, ranker)
    work.tracked.finish({"best_ndcg@10": fitted.best.ndcg})
    return run.updated(
        status="finished",
        epochs=fitted.epochs,
        best_epoch=fitted.best.epoch,
        blend=blend.summary() if blend else None,
        ranker=ranker.summary(),
        seconds={
            "towers": round(towers_s, 1),
            "blend": round(blend_s, 1),
            "ranker": round(ranker_s, 1),
        },
    )


def _blend(learned: UserTower, data: TrainingData, run: Run) -> tuple[Tower, Blend | None]:
    """What is served: the learned tower, blended where the recipe says so and it helps."""
    if not run.recipe.blend:
        return learned, None
    known = Known(data.train, data.catalogue)
    blend, tower = choose_blend(learned, known, data.validation, run.seed)
    return tower, blend


def _with_validation(
    learned: UserTower, dataset: Dataset, cut: Split, blend: Blend, seed: int
) -> Tower:
    """The blend again, now that nothing is left to choose: its other parts learn VALIDATION too."""
    events = fold_events(dataset, cut, TRAIN, VALIDATION)
    return blend_towers(learned, events, blend.weights, seed)


def check_recipe(recipe: Recipe, dataset: Dataset) -> None:
    """UserError when the recipe asks for ratings or times that the data has not."""
    if recipe.loss == "mixed" and not dataset.has_ratings:
        raise UserError(f"loss mixed needs ratings, {dataset.path} has none: choose in-batch")
    if recipe.user_features and not (dataset.has_ratings or dataset.has_time):
        raise UserError(
            f"user_features are made of ratings and times, {dataset.path} has neither: leave it out"
        )


def training_data(dataset: Dataset, cut: Split, recipe: Recipe, validation: Events) -> TrainingData:
    """What the towers learn from under `recipe`, and the events that choose their epoch."""
    learned = cut.fold == TRAIN
    # Unrated is not low: a comparison with NaN is false.
    low = dataset.rating[learned] < recipe.given_below if recipe.loss == "mixed" else None
    return TrainingData(
        train=events_where(dataset, learned),
        validation=validation,
        item_features=item_tower_features(dataset.items),
        catalogue=cut.catalogue,
        low=low,
        user_features=user_tower_features(dataset, learned) if recipe.user_features else None,
    )


def _write_model(out: Path, tower: Tower, ranker: Ranker) -> None:
    """Put tower and ranker in RUN/model, all at once."""
    staging = out / f".{MODEL}.new"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    tower.save(staging)
    ranker.save(staging)
    shutil.rmtree(out / MODEL, ignore_errors=True)
    staging.rename(out / MODEL)


def _params(run: Run) -> dict[str, Any]:
    """What MLflow records as parameters."""
    fixed = {"data", "fingerprint", "protocol", "k_core", "seed", "split_hash", "workers"}
    return {**run.model_dump(include=fixed), **run.recipe.model_dump()}


def _line(epoch: Epoch, epochs: int) -> str:
    return (
        f"epoch {epoch.epoch:>3} of {epochs}  loss {epoch.loss:.4f}  "
        f"validation NDCG@10 {epoch.ndcg:.4f}  {epoch.seconds:.1f} s"
    )
