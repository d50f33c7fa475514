"""From data to a promoted version in one go: what a first install and a nightly job run.

prepare -> train -> evaluate -> gate -> publish -> promote. Nothing reaches the store before the
gate, so a run that was killed can be started again.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from training.evaluate_command import model_names, read_subject, scorer, write_evaluation
from training.model.manifest import Manifest
from training.run import RECORD, Run
from training.store import Store

MODELS = "ranked,popularity"
METRIC = "ndcg@10"

Report = Callable[[str], None]


class GateClosed(Exception):
    """The new model is not good enough to answer; the message says by how much."""


@dataclass(frozen=True)
class Plan:
    """What to train on and what it must reach.

    raw: a MovieLens directory or a dataset.yaml, here or on S3, or None for a synthetic set of
        `users`, `items`, `events`.
    log: the service's event log, whose events are learnt from as well.
    workers, min_workers, max_failures, checkpoints, gpu: as `marquee train` has them.
    max_drop: share of production's NDCG@10 that may be lost before the gate closes.
    """

    work: Path
    raw: str | None
    users: int
    items: int
    events: int
    workers: int | None
    epochs: int | None
    max_drop: float
    log: str | None = None
    min_workers: int | None = None
    max_failures: int = 3
    checkpoints: str | None = None
    gpu: bool | None = None


def make_run(plan: Plan, report: Report) -> dict[str, Any]:
    """Prepare, train and evaluate in `plan.work`; returns the evaluation.

    A training that was interrupted there goes on from its last checkpoint.
    """
    from training.train import Request, train

    run = plan.work / "run"
    resume = (run / RECORD).is_file() and Run.read(run).status != "finished"
    if not resume:
        _prepare(plan, report)
        shutil.rmtree(run, ignore_errors=True)
    request = Request(
        plan.work / "data",
        run,
        workers=plan.workers,
        epochs=plan.epochs,
        resume=resume,
        min_workers=plan.min_workers,
        max_failures=plan.max_failures,
        checkpoints=plan.checkpoints,
        gpu=plan.gpu,
    )
    report("Training")
    train(request, report)
    report("Ranking the catalogue for every test user")
    return _evaluate(run)


def check_gate(evaluation: dict[str, Any], production: Manifest | None, max_drop: float) -> str:
    """One line on why the model may answer. Raises GateClosed.

    The first version of a store always may: without it nothing is served. A later one must beat
    popularity, and keep up with the version that answers when both were measured under the same
    protocol; another protocol's figures say nothing about it.
    """
    reached, floor = ndcg(evaluation, "ranked"), ndcg(evaluation, "popularity")
    if production is None:
        return f"the first version, {METRIC} {reached or 0.0:.4f}"
    if reached is None or floor is None:
        raise GateClosed(f"the evaluation has no {METRIC} of ranked and popularity")
    if reached <= floor:
        raise GateClosed(f"{METRIC} {reached:.4f} is not above popularity's {floor:.4f}")
    before = None
    if production.metrics.get("protocol") == evaluation["protocol"]:
        before = ndcg(production.metrics, "ranked")
    if before is None:
        return f"{METRIC} {reached:.4f}, popularity {floor:.4f}; nothing else to compare with"
    least = before * (1 - max_drop)
    if reached < least:
        raise GateClosed(
            f"{METRIC} {reached:.4f} is below {least:.4f}, "
            f"{1 - max_drop:.0%} of version {production.version}'s {before:.4f}"
        )
    return f"{METRIC} {reached:.4f}, version {production.version} has {before:.4f}"


def production_manifest(store: Store) -> Manifest | None:
    """The manifest of the version that answers, None when the store is empty."""
    version = store.production()
    return None if version is None else store.manifest(version)


def ndcg(metrics: dict[str, Any], model: str) -> float | None:
    """NDCG@10 of a model in what `marquee evaluate` wrote, None when it is not there."""
    measured = metrics.get("models", {}).get(model, {}).get(METRIC)
    return None if measured is None else float(measured["value"])


def _prepare(plan: Plan, report: Report) -> None:
    from training.data.event_log import leave_out
    from training.data.mapping import described_source
    from training.data.prepare import prepare
    from training.data.synthetic import write_synthetic

    raw = plan.raw
    if raw is None:
        report("Inventing users, items and ratings")
        raw = str(plan.work / "raw")
        shutil.rmtree(raw, ignore_errors=True)
        write_synthetic(Path(raw), users=plan.users, items=plan.items, events=plan.events, seed=0)
    report("Preparing")
    data = plan.work / "data"
    shutil.rmtree(data, ignore_errors=True)
    source = described_source(raw)
    if plan.log is not None:
        source = leave_out(source, plan.log)
    prepare(source, data, max_rejects=0.01, report=report)
    if plan.log is not None:
        _append_log(plan.log, data, report)


def _append_log(log: str, data: Path, report: Report) -> None:
    """Add what users have done since; a service that nobody has used yet has no log."""
    from training.data.event_log import is_log, log_source
    from training.data.prepare import prepare

    if not is_log(log):
        report(f"No events in {log} yet")
        return
    with TemporaryDirectory(prefix="marquee-log-") as aside:
        source = log_source(log, Path(aside), into=data)
        if source is None:
            report(f"Nothing to learn in {log} yet")
            return
        report(f"Adding the events of {log}")
        prepare(source, data, append=True, report=report)


def _evaluate(run: Path) -> dict[str, Any]:
    from training.evaluate import Known, evaluate

    subject = read_subject(run, protocol=None, seed=0)
    known = Known.of(subject.dataset, subject.split)
    scorers = {name: scorer(name, subject, known, 0) for name in model_names(subject, MODELS)}
    result = evaluate(subject.dataset, subject.split, scorers, ks=[10], seed=0).to_json()
    write_evaluation(run, result)
    return result
