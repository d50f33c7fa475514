"""The second-stage ranker over the tower's candidates: trees or a deep network, as the recipe says.

It is trained on VALIDATION, which the tower did not learn from, with features that know TRAIN
only. It is kept only where cross-fitting shows a gain over the tower's own order that does not
include zero; otherwise what is saved in its place is a ranker that keeps the tower's order.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.calibration import calibrated
from training.checkpoints import Storage
from training.data.dataset import Dataset
from training.data.splits import TRAIN, VALIDATION, Split
from training.evaluate import Known, Lists, fold_events, rank_catalogue
from training.inputs import catalogue_inputs, ranker_user_inputs
from training.metrics import Interval, auc, gain_interval, hit_matrix, log_loss, user_metrics
from training.model.blend import Tower
from training.model.rankers import RankingModel
from training.model.ranking import RANKER_FEATURES, TOWER_ORDER, ranker_features
from training.ranker_fit import Groups, fit_models, tower_order
from training.recipe import Recipe

CUTOFF = 10
_PARTS = 5  # of cross-fitting
_UNKNOWN_SHARE = 0.2  # of the users, whose features are hidden, so that new users are no surprise
_LEAST_DIVIDED = 1000  # validation users; of fewer, all choose the tower's epoch


@dataclass(frozen=True)
class ValidationUsers:
    """Who of VALIDATION does what: user_idx that choose the tower's epoch and train the ranker."""

    choosing: np.ndarray
    ranker: np.ndarray


@dataclass(frozen=True)
class Quality:
    """What cross-fitting found, on users that each model was not fitted on.

    gain: NDCG@10 over the tower's order. auc, log_loss: of single candidates, relevant or not;
    scores become chances by a logistic curve fitted on other users than it is applied to.
    """

    gain: Interval
    auc: float
    log_loss: float

    def to_json(self) -> dict[str, Any]:
        """As run.json and `marquee bench rankers` have it."""
        return {
            f"ndcg@{CUTOFF}_gain": asdict(self.gain),
            "auc": round(self.auc, 4),
            "log_loss": round(self.log_loss, 5),
        }


@dataclass(frozen=True)
class Ranker:
    """A ranker and what is known of it; quality is None if it was not measured.

    kind: the recipe's, or "tower-order" where that one did not earn its place.
    """

    model: RankingModel
    kind: str
    users: int
    quality: Quality | None

    def summary(self) -> dict[str, Any]:
        """What run.json records."""
        quality = self.quality.to_json() if self.quality else {f"ndcg@{CUTOFF}_gain": None}
        return {"kind": self.kind, "users": self.users, **quality}

    def describe(self) -> str:
        """One line for people."""
        if self.quality is None:
            return f"ranker: {self.users} users are too few, the tower's order is kept"
        gain = self.quality.gain.as_gain
        kept = "not kept, the tower's order is" if self.kind == TOWER_ORDER else "kept"
        return f"ranker: NDCG@{CUTOFF} {gain} on {self.users} users, {kept}"

    def save(self, directory: Path) -> None:
        """Write the model's file and ranker.json: its kind and the features it reads."""
        self.model.save(directory)
        record = {"features": RANKER_FEATURES, **self.summary()}
        (directory / "ranker.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")


def divide_validation(split: Split, user: np.ndarray, recipe: Recipe, seed: int) -> ValidationUsers:
    """Who of VALIDATION does what: some choose, all train the ranker.

    That the tower was chosen for some of those users makes it look a little better on them, and so
    the ranker's gain over it a little smaller. user: int32 [E], whose each event is.
    """
    users = np.unique(user[split.fold == VALIDATION])
    drawn = np.random.default_rng(seed).permutation(users)
    share = recipe.choosing_share if len(users) >= _LEAST_DIVIDED else 1
    choosing = drawn[len(users) - round(len(users) * share) :]
    return ValidationUsers(np.sort(choosing), np.sort(drawn[: recipe.ranker_max_users]))


def fit_ranker(
    dataset: Dataset,
    split: Split,
    users: np.ndarray,
    tower: Tower,
    recipe: Recipe,
    seed: int,
    *,
    workers: int = 1,
    storage: Storage | None = None,
) -> Ranker:
    """A ranker trained on the VALIDATION events of `users` (user_idx int [N]).

    workers, storage: of Ray Train, as `fit_models` has them.
    """
    groups = candidate_groups(dataset, split, users, tower, recipe.candidates, seed)
    useful = int(groups.hits.any(axis=1).sum())
    if useful < recipe.ranker_users:
        return Ranker(tower_order(), TOWER_ORDER, useful, None)
    model, quality = cross_fit(groups, recipe, seed, workers=workers, storage=storage)
    if quality.gain.low <= 0:
        return Ranker(tower_order(), TOWER_ORDER, len(users), quality)
    return Ranker(model, recipe.ranker, len(users), quality)


def candidate_groups(
    dataset: Dataset, split: Split, users: np.ndarray, tower: Tower, candidates: int, seed: int
) -> Groups:
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
    return Groups(
        rows.reshape(len(users), candidates, len(RANKER_FEATURES)),
        hit_matrix(lists.items, relevant, offsets, dataset.n_items),
        np.diff(offsets),
    )


def cross_fit(
    groups: Groups, recipe: Recipe, seed: int, *, workers: int = 1, storage: Storage | None = None
) -> tuple[RankingModel, Quality]:
    """The recipe's model, fitted on all users with a hit, and its quality on unseen ones."""
    part = parts(groups, seed)
    useful = groups.hits.any(axis=1)
    chosen = [useful & (part != held_out) for held_out in range(_PARTS)]
    sets = [groups.of(np.flatnonzero(some)) for some in (*chosen, useful)]
    *models, whole = fit_models(sets, recipe, seed, workers=workers, storage=storage)
    scores = np.full(groups.hits.shape, -np.inf)
    filled = groups.filled()
    for held_out, model in enumerate(models):
        judged = filled & (part == held_out)[:, None]
        scores[judged] = model.predict(groups.rows[judged])
    return whole, quality_of(groups, scores, part, seed)


def parts(groups: Groups, seed: int) -> np.ndarray:
    """The part of cross-fitting that each user belongs to, int [N]."""
    return np.random.default_rng(seed).permutation(len(groups.hits)) % _PARTS


def quality_of(groups: Groups, scores: np.ndarray, part: np.ndarray, seed: int) -> Quality:
    """Of scores [N, K], each by a model fitted without that user, whose part is int [N]."""
    order = np.argsort(-scores, axis=1, kind="stable")
    hits = np.take_along_axis(groups.hits, order, axis=1)
    before = user_metrics(groups.hits, groups.n_relevant, CUTOFF)["ndcg"]
    after = user_metrics(hits, groups.n_relevant, CUTOFF)["ndcg"]
    filled = groups.filled()
    score, hit = scores[filled], groups.hits[filled]
    owner = np.broadcast_to(part[:, None], scores.shape)[filled]
    return Quality(
        gain=gain_interval(before, after, seed=seed),
        auc=auc(score, hit),
        log_loss=log_loss(calibrated(score, hit, owner), hit),
    )
