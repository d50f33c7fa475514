"""Fits ranking models of each kind on candidates; training/rank.py says what they are for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np

from training.checkpoints import Storage
from training.deep_ranking import fit_deep
from training.model.rankers import LightGBMRanker, RankingModel, XGBoostRanker
from training.model.ranking import DEEP, RANKER_FEATURES, XGBOOST
from training.recipe import Recipe

# Trees' threads wait for each other by spinning: on a busy machine two of them are many times
# slower than one, and one takes under ten seconds for MovieLens 1M.
THREADS = 1
_TRUNCATION = 20  # pairs are formed with a candidate this far up the list: twice the cut-off
_LEAST_ROWS = 300  # of a leaf
_COLUMNS = 0.7  # share of the features that a tree sees


@dataclass(frozen=True)
class Groups:
    """Candidates of N users as rankers read them, K a user.

    rows: float32 [N, K, F]; an empty slot, at the end of a list that the catalogue could not fill,
        is all NaN. hits: bool [N, K]. n_relevant: int [N], with those not retrieved.
    """

    rows: np.ndarray
    hits: np.ndarray
    n_relevant: np.ndarray

    def of(self, users: np.ndarray) -> "Groups":
        """Those of some users, int [n]."""
        return Groups(self.rows[users], self.hits[users], self.n_relevant[users])

    def filled(self) -> np.ndarray:
        """Slots that hold a candidate, bool [N, K]."""
        filled: np.ndarray = ~np.isnan(self.rows[:, :, 0])
        return filled


def fit_models(
    sets: Sequence[Groups], recipe: Recipe, seed: int, *, workers: int, storage: Storage | None
) -> list[RankingModel]:
    """A model of the recipe's kind for each set, fitted without the others.

    workers, storage: of Ray Train, which fits the deep kinds; storage None is a temporary
    directory of this machine. Trees are fitted here and now.
    """
    if recipe.ranker in DEEP:
        lists = [(groups.rows, groups.hits) for groups in sets]
        return list(fit_deep(lists, recipe, seed, workers=workers, storage=storage))
    if recipe.ranker == XGBOOST:
        return [_xgboost(groups, recipe, seed) for groups in sets]
    return [_lambdamart(groups, recipe, seed) for groups in sets]


def _lambdamart(groups: Groups, recipe: Recipe, seed: int) -> LightGBMRanker:
    filled = groups.filled()
    data = lightgbm.Dataset(
        groups.rows[filled],
        label=groups.hits[filled].astype(np.int32),
        group=filled.sum(axis=1),
        feature_name=list(RANKER_FEATURES),
        free_raw_data=True,
    )
    settings = {
        "objective": "lambdarank",
        "lambdarank_truncation_level": _TRUNCATION,
        "num_leaves": recipe.ranker_leaves,
        "learning_rate": recipe.ranker_learning_rate,
        "min_data_in_leaf": _LEAST_ROWS,
        "feature_fraction": _COLUMNS,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": THREADS,
        "verbosity": -1,
    }
    return LightGBMRanker(lightgbm.train(settings, data, num_boost_round=recipe.ranker_trees))


def _xgboost(groups: Groups, recipe: Recipe, seed: int) -> XGBoostRanker:
    import xgboost

    filled = groups.filled()
    data = xgboost.DMatrix(
        groups.rows[filled],
        label=groups.hits[filled].astype(np.int32),
        group=filled.sum(axis=1),
        nthread=THREADS,
    )
    settings: dict[str, Any] = {
        "objective": "rank:ndcg",
        "lambdarank_pair_method": "topk",
        "lambdarank_num_pair_per_sample": _TRUNCATION,
        "tree_method": "hist",
        "grow_policy": "lossguide",
        "max_depth": 0,
        "max_leaves": recipe.ranker_leaves,
        "learning_rate": recipe.ranker_learning_rate,
        "colsample_bytree": _COLUMNS,
        "seed": seed,
        "nthread": THREADS,
        "verbosity": 0,
    }
    return XGBoostRanker(xgboost.train(settings, data, num_boost_round=recipe.ranker_trees))


def tower_order() -> LightGBMRanker:
    """A ranker of one tree that scores a candidate by the tower's own rank, first the highest."""
    ranks = 1024
    rows = np.full((ranks, len(RANKER_FEATURES)), np.nan)
    rows[:, RANKER_FEATURES.index("tower_rank")] = np.arange(ranks)
    settings = {
        "objective": "regression",
        "num_leaves": ranks,
        "max_bin": ranks + 1,
        "min_data_in_bin": 1,
        "min_data_in_leaf": 1,
        "min_sum_hessian_in_leaf": 0,
        "learning_rate": 1.0,
        "boost_from_average": False,
        "num_threads": THREADS,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(rows, label=-np.arange(ranks), feature_name=list(RANKER_FEATURES))
    return LightGBMRanker(lightgbm.train(settings, data, num_boost_round=1))
