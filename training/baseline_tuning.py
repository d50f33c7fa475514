"""Chooses iALS's settings on VALIDATION, which no other baseline needs."""

from dataclasses import replace

import numpy as np

from training.baselines import Events, IalsSettings, ials
from training.data.dataset import Dataset
from training.data.splits import TRAIN, VALIDATION, Split
from training.evaluate import Known, fold_events, rank_catalogue
from training.metrics import hit_matrix, user_metrics

CUTOFF = 10
FACTORS = (32, 64, 128)
ALPHAS = (1.0, 5.0, 20.0)
REGULARIZATIONS = (0.01, 1.0)  # beside the untuned one, and of the best of the others only


def tune_ials(dataset: Dataset, split: Split, seed: int) -> tuple[IalsSettings, float]:
    """The settings with the best NDCG@10 on VALIDATION, fitted on TRAIN, and that NDCG."""
    known = Known(fold_events(dataset, split, TRAIN), split.catalogue)
    held_out = fold_events(dataset, split, VALIDATION)
    tried: dict[IalsSettings, float] = {}

    def try_all(candidates: list[IalsSettings]) -> IalsSettings:
        for settings in candidates:
            tried[settings] = _ndcg(settings, known, held_out, seed)
        return max(tried, key=lambda settings: tried[settings])

    best = try_all([IalsSettings(factors, alpha) for factors in FACTORS for alpha in ALPHAS])
    best = try_all([replace(best, regularization=value) for value in REGULARIZATIONS])
    return best, tried[best]


def _ndcg(settings: IalsSettings, known: Known, held_out: Events, seed: int) -> float:
    users = np.unique(held_out.user)
    lists = rank_catalogue(ials(known.events, seed, settings), users, known, CUTOFF)
    relevant, offsets = held_out.histories(users)
    hits = hit_matrix(lists.items, relevant, offsets, held_out.n_items)
    return float(user_metrics(hits, np.diff(offsets), CUTOFF)["ndcg"].mean())
