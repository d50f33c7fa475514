"""What each loss reaches on one data set with the same budget of epochs: `marquee bench losses`."""

import os
from pathlib import Path
from typing import Any, get_args

from bench.towers import Report, scorer_of, train_tower
from training.data.dataset import Dataset, load
from training.data.splits import Split, default_core, split
from training.errors import UserError
from training.evaluate import Known, evaluate
from training.recipe import Recipe, recipe_for

LOSSES: tuple[str, ...] = get_args(Recipe.model_fields["loss"].annotation)
REPORTED = ("ndcg@10", "hit@10", "recall@10", "coverage@10")


def bench_losses(
    data: Path, *, losses: tuple[str, ...], protocol: str, epochs: int, seed: int, report: Report
) -> dict[str, Any]:
    """Figures of the tower alone under each loss, all else as the protocol's recipe has it."""
    unknown = [loss for loss in losses if loss not in LOSSES]
    if unknown:
        raise UserError(f"--losses {unknown[0]!r} is unknown: choose of {', '.join(LOSSES)}")
    dataset = load(data)
    if "mixed" in losses and not dataset.has_ratings:
        raise UserError(f"loss mixed needs ratings, {data} has none: leave it out of --losses")
    cut = split(dataset, protocol, k_core=default_core(protocol), seed=seed)
    base = recipe_for(protocol).model_copy(update={"epochs": epochs})
    figures: dict[str, Any] = {
        "protocol": protocol,
        "split_hash": cut.hash,
        "seed": seed,
        "epochs": epochs,
        "cpus": len(os.sched_getaffinity(0)),
        "losses": {},
    }
    for loss in losses:
        report(f"Training with {loss}")
        recipe = base.model_copy(update={"loss": loss})
        figures["losses"][loss] = _measured(dataset, cut, recipe, seed, report)
        report(f"{loss}: {figures['losses'][loss]}")
    return figures


def _measured(
    dataset: Dataset, cut: Split, recipe: Recipe, seed: int, report: Report
) -> dict[str, Any]:
    trained = train_tower(dataset, cut, recipe, seed, report)
    scorer = scorer_of(trained.tower, Known.of(dataset, cut))
    metrics = evaluate(dataset, cut, {"tower": scorer}, ks=(10,), seed=seed).metrics["tower"]
    return {
        "best_epoch": trained.best_epoch,
        "train_s": trained.seconds,
        "validation_ndcg@10": round(max(trained.ndcg), 4),
        "test": {name: vars(metrics[name]) for name in REPORTED},
    }
