"""The second-stage ranker: LightGBM LambdaMART over the tower's candidates.

It is trained on VALIDATION, which the tower did not learn from, with features that know TRAIN
only. It is kept only where cross-fitting shows a gain over the tower's own order that does not
include zero; otherwise what is saved in its place is a ranker that keeps the tower's order.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from training.data.dataset import Dataset
from training.data.splits import TRAIN, VALIDATION, Split
from training.evaluate import Known, Lists, fold_events, rank_catalogue
from training.inputs import catalogue_inputs, ranker_user_inputs
from training.metrics import Interval, gain_interval, hit_matrix, user_metrics
from training.model.blend import Tower
from training.model.ranking import RANKER_FEATURES, ranker_features
from training.recipe import Recipe

CUTOFF = 10
_PARTS = 3  # of cross-fitting
_UNKNOWN_SHARE = 0.2  # of the users, whose features are hidden, so that new users are no surprise
# LightGBM's threads wait for each other by spinning: on a busy machine two of them are many times
# slower than one, and one takes under ten seconds for MovieLens 1M.
_THREADS = 1
_LEAST_DIVIDED = 1000  # validation users; fewer choose the epoch and train the ranker, all of them


@dataclass(frozen=True)
class ValidationUsers:
    """Who of VALIDATION does what: user_idx that choose the tower's epoch and train the ranker."""

    choosing: np.ndarray
    ranker: np.ndarray


@dataclass(frozen=True)
class Ranker:
    """A ranker and what is known of it.

    gain: NDCG@10 over the tower's order, on users it was not fitted on; None if not measured.
    """

    booster: lightgbm.Booster
    kind: str  # "lambdamart" or "tower-order"
    users: int
    gain: Interval | None

    def summary(self) -> dict[str, Any]:
        """What run.json records."""
        gain = asdict(self.gain) if self.gain else None
        return {"kind": self.kind, "users": self.users, f"ndcg@{CUTOFF}_gain": gain}

    def describe(self) -> str:
        """One line for people."""
        if self.gain is None:
            return f"ranker: {self.users} users are too few, the tower's order is kept"
        gain = f"{self.gain.value:+.4f} ({self.gain.low:+.4f} to {self.gain.high:+.4f})"
        kept = "kept" if self.kind == "lambdamart" else "not kept, the tower's order is"
        return f"ranker: NDCG@{CUTOFF} {gain} on {self.users} users, {kept}"

    def save(self, directory: Path) -> None:
        """Write ranker.txt, LightGBM's text, and ranker.json, the features it reads."""
        self.booster.save_model(directory / "ranker.txt")
        record = {"features": RANKER_FEATURES, **self.summary()}
        (directory / "ranker.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")


@dataclass(frozen=True)
class _Groups:
    """Candidates of N users as LightGBM reads them, K a user.

    rows: float32 [N, K, F]. hits: bool [N, K]. n_relevant: int [N], with those not retrieved.
    """

    rows: np.ndarray
    hits: np.ndarray
    n_relevant: np.ndarray

    def of(self, users: np.ndarray) -> "_Groups":
        return _Groups(self.rows[users], self.hits[users], self.n_relevant[users])


def divide_validation(split: Split, user: np.ndarray, recipe: Recipe, seed: int) -> ValidationUsers:
    """Deal the users of VALIDATION out to the two uses; a small fold serves both whole.

    user: int32 [E], whose each event is.
    """
    users = np.unique(user[split.fold == VALIDATION])
    if len(users) < _LEAST_DIVIDED:
        return ValidationUsers(users, users)
    drawn = np.random.default_rng(seed).permutation(users)
    n_ranker = min(int(len(users) * recipe.ranker_share), recipe.ranker_max_users)
    return ValidationUsers(np.sort(drawn[n_ranker:]), np.sort(drawn[:n_ranker]))


def fit_ranker(
    dataset: Dataset,
    split: Split,
    users: np.ndarray,
    tower: Tower,
    recipe: Recipe,
    seed: int,
) -> Ranker:
    """A ranker trained on the VALIDATION events of `users` (user_idx int [N])."""
    groups = _candidate_groups(dataset, split, users, tower, recipe.candidates, seed)
    useful = np.flatnonzero(groups.hits.any(axis=1))
    if len(useful) < recipe.ranker_users:
        return Ranker(_tower_order(), "tower-order", len(useful), None)
    before = user_metrics(groups.hits, groups.n_relevant, CUTOFF)["ndcg"]
    after = _cross_fitted_ndcg(groups, recipe, seed)
    gain = gain_interval(before, after, seed=seed)
    if gain.low <= 0:
        return Ranker(_tower_order(), "tower-order", len(users), gain)
    return Ranker(_fit(groups.of(useful), recipe, seed), "lambdamart", len(users), gain)


def _candidate_groups(
    dataset: Dataset, split: Split, users: np.ndarray, tower: Tower, candidates: int, seed: int
) -> _Groups:
    """The tower's candidates for `users`, as of the end of TRAIN, and which are in VALIDATION."""
    past = split.fold == TRAIN
    known = Known(fold_events(dataset, split, TRAIN), split.catalogue)
    vectors = tower.item_vectors.numpy()
    lists: Lists = rank_catalogue(
        lambda some: tower.encode_ragged(*known.histories(some), some) @ vectors.T,
        users,
        known,
        candidates,
    )
    relevant, offsets = fold_events(dataset, split, VALIDATION).histories(users)
    user_inputs = ranker_user_inputs(dataset, past)[users]
    hidden = np.random.default_rng(seed).random(len(users)) < _UNKNOWN_SHARE
    user_inputs[hidden] = np.nan
    rows = ranker_features(
        catalogue_inputs(dataset, vectors, past),
        lists.items,
        lists.scores,
        *known.histories(users),
        user_inputs,
    )
    return _Groups(
        rows.reshape(len(users), candidates, len(RANKER_FEATURES)),
        hit_matrix(lists.items, relevant, offsets, dataset.n_items),
        np.diff(offsets),
    )


def _cross_fitted_ndcg(groups: _Groups, recipe: Recipe, seed: int) -> np.ndarray:
    """NDCG@10 float64 [N] of each user's candidates, ranked by a model fitted without that user."""
    part = np.random.default_rng(seed).permutation(len(groups.hits)) % _PARTS
    useful = groups.hits.any(axis=1)
    ndcg = np.zeros(len(part))
    for held_out in range(_PARTS):
        booster = _fit(groups.of(np.flatnonzero((part != held_out) & useful)), recipe, seed)
        judged = groups.of(np.flatnonzero(part == held_out))
        scores = booster.predict(
            judged.rows.reshape(-1, len(RANKER_FEATURES)), num_threads=_THREADS
        )
        order = np.argsort(-scores.reshape(judged.hits.shape), axis=1, kind="stable")
        hits = np.take_along_axis(judged.hits, order, axis=1)
        ndcg[part == held_out] = user_metrics(hits, judged.n_relevant, CUTOFF)["ndcg"]
    return ndcg


def _fit(groups: _Groups, recipe: Recipe, seed: int) -> lightgbm.Booster:
    users, candidates = groups.hits.shape
    rows = groups.rows.reshape(users * candidates, -1)
    # An empty slot, at the end of a list that the catalogue could not fill, is all NaN.
    filled = ~np.isnan(rows[:, 0])
    data = lightgbm.Dataset(
        rows[filled],
        label=groups.hits.ravel()[filled].astype(np.int32),
        group=filled.reshape(users, candidates).sum(axis=1),
        feature_name=list(RANKER_FEATURES),
        free_raw_data=True,
    )
    settings = {
        "objective": "lambdarank",
        "lambdarank_truncation_level": 2 * CUTOFF,
        "num_leaves": recipe.ranker_leaves,
        "learning_rate": recipe.ranker_learning_rate,
        "min_data_in_leaf": 300,
        "feature_fraction": 0.7,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": _THREADS,
        "verbosity": -1,
    }
    return lightgbm.train(settings, data, num_boost_round=recipe.ranker_trees)


def _tower_order() -> lightgbm.Booster:
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
        "num_threads": _THREADS,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(rows, label=-np.arange(ranks), feature_name=list(RANKER_FEATURES))
    return lightgbm.train(settings, data, num_boost_round=1)
