"""Trains a tower in this process, without Ray, for the measurements that compare towers."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.baselines import Scorer
from training.data.dataset import Dataset
from training.data.splits import VALIDATION, Split
from training.evaluate import Known, events_where
from training.fit import Learner
from training.model.two_tower import UserTower
from training.recipe import Recipe
from training.train import training_data

Report = Callable[[str], None]


@dataclass(frozen=True)
class TrainedTower:
    """The tower of the best epoch, counted from 1; ndcg: NDCG@10 on VALIDATION after each."""

    tower: UserTower
    ndcg: list[float]
    best_epoch: int
    seconds: float


def train_tower(
    dataset: Dataset, cut: Split, recipe: Recipe, seed: int, report: Report
) -> TrainedTower:
    """The recipe's tower on TRAIN, all its epochs long; all of VALIDATION chooses among them."""
    validation = events_where(dataset, cut.fold == VALIDATION)
    learner = Learner(recipe, training_data(dataset, cut, recipe, validation), seed=seed)
    ndcg: list[float] = []
    best, seconds = 0, 0.0
    with tempfile.TemporaryDirectory(prefix="marquee-bench-") as directory:
        for epoch in range(recipe.epochs):
            began = time.perf_counter()
            loss = learner.run_epoch(epoch)
            seconds += time.perf_counter() - began
            ndcg.append(learner.validate())
            report(f"epoch {epoch + 1} of {recipe.epochs}: loss {loss:.4f}, NDCG@10 {ndcg[-1]:.4f}")
            if ndcg[-1] == max(ndcg):
                best = epoch + 1
                learner.save(Path(directory), [])
        learner.load(Path(directory))
    return TrainedTower(learner.tower(), ndcg, best, round(seconds, 1))


def scorer_of(tower: UserTower, known: Known) -> Scorer:
    """Scores of users by what is known of them."""
    vectors = tower.item_vectors.numpy().T

    def score(users: np.ndarray) -> np.ndarray:
        scores: np.ndarray = tower.encode_ragged(*known.histories(users), users) @ vectors
        return scores

    return score
