"""Items that nobody met in training, placed by their features alone: `marquee bench cold`.

A share of the catalogue is taken out of training with all its events. What is asked is how well
those items are found for the users whose TEST events they are, in the whole catalogue and among
themselves, beside popularity. The popularity of TRAIN knows nothing of them; `true popularity`
counts the very events that were taken out, which no model for new items could know.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.towers import Report, scorer_of, train_tower
from training.baselines import BASELINES, Scorer
from training.data.dataset import Dataset, load
from training.data.splits import DROPPED, TEST, TRAIN, VALIDATION, Split, default_core, split
from training.errors import UserError
from training.evaluate import Known, evaluate, fold_events
from training.recipe import Recipe, recipe_for

CUTOFFS = (10, 50)


def bench_cold(
    data: Path,
    *,
    protocol: str,
    share: float,
    epochs: int,
    recipe: Recipe | None,
    seed: int,
    report: Report,
) -> dict[str, Any]:
    """Figures for a drawn `share` of the items.

    recipe: as it is; None is the protocol's own with `unseen_by_features`.
    """
    dataset = load(data)
    whole = split(dataset, protocol, k_core=default_core(protocol), seed=seed)
    cold = draw_items(whole, share, seed)
    cut = without(dataset, whole, cold)
    if not (cut.fold == TEST).any():
        raise UserError(f"--share {share}: no test event is of the items it draws, take more")
    chosen = recipe or recipe_for(protocol).model_copy(update={"unseen_by_features": True})
    chosen = chosen.model_copy(update={"epochs": epochs})
    trained = train_tower(dataset, cut, chosen, seed, report)
    known = Known.of(dataset, cut)
    once = np.isin(whole.fold, (TRAIN, VALIDATION))
    counts = np.bincount(dataset.item[once], minlength=dataset.n_items).astype(np.float32)
    models: dict[str, Scorer] = {
        "two-tower": scorer_of(trained.tower, known),
        "popularity": BASELINES["popularity"](known.events, seed),
        "random": BASELINES["random"](known.events, seed),
        "true popularity": lambda users: np.tile(counts, (len(users), 1)),
    }
    among = {"whole catalogue": cut, "unseen items": replace(cut, catalogue=cold & cut.catalogue)}
    return {
        "protocol": protocol,
        "split_hash": whole.hash,
        "seed": seed,
        "share": share,
        "unseen_items": int(cold.sum()),
        "epochs": epochs,
        "unseen_by_features": chosen.unseen_by_features,
        "best_epoch": trained.best_epoch,
        "test_users": len(np.unique(fold_events(dataset, cut, TEST).user)),
        "test_events": int((cut.fold == TEST).sum()),
        "among": {name: _measured(dataset, some, models, seed) for name, some in among.items()},
    }


def draw_items(cut: Split, share: float, seed: int) -> np.ndarray:
    """Which items are taken out, bool [I], drawn of those that may be recommended."""
    items = np.flatnonzero(cut.catalogue)
    drawn = np.random.default_rng(seed).permutation(items)[: round(share * len(items))]
    cold = np.zeros(len(cut.catalogue), bool)
    cold[drawn] = True
    return cold


def without(dataset: Dataset, cut: Split, cold: np.ndarray) -> Split:
    """The split without the cold items (bool [I]) before TEST, and without all others in it."""
    of_cold = cold[dataset.item]
    fold = np.where(of_cold == (cut.fold == TEST), cut.fold, DROPPED)
    return replace(cut, fold=fold.astype(np.int8))


def _measured(
    dataset: Dataset, cut: Split, models: dict[str, Scorer], seed: int
) -> dict[str, dict[str, Any]]:
    found = evaluate(dataset, cut, models, ks=CUTOFFS, seed=seed).metrics
    names = [f"{metric}@{k}" for metric in ("recall", "ndcg") for k in CUTOFFS]
    return {
        model: {name: vars(metrics[name]) for name in names} for model, metrics in found.items()
    }
