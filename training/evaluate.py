"""Judges models on a split's TEST events: every item of the catalogue ranked, seen ones masked.

Shape legend: U test users, b of them at once, I items, K the longest list.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from training.baselines import Events, Scorer
from training.data.dataset import Dataset
from training.data.features import genre_matrix
from training.data.output import staged_directory
from training.data.splits import TEST, TRAIN, VALIDATION, Split
from training.metrics import Interval, gain_interval, hit_matrix, summarise, user_metrics
from training.model.blend import load_tower
from training.model.rankers import RankingModel
from training.model.ranking import CatalogueInputs, ranker_features
from training.slices import Slice, make_slices, measure

_SCORES_AT_ONCE = 8_000_000  # elements of the score matrix held in memory
DUMP_MARKER = "recommendations.parquet"


@dataclass(frozen=True)
class Known:
    """What may be known when TEST is predicted: TRAIN + VALIDATION, and what may be offered."""

    events: Events
    catalogue: np.ndarray  # bool [I]

    @classmethod
    def of(cls, dataset: Dataset, split: Split) -> "Known":
        return cls(fold_events(dataset, split, TRAIN, VALIDATION), split.catalogue)

    @cached_property
    def met(self) -> sparse.csr_matrix:
        """1 where a user met an item, float32 [users, I]."""
        return self.events.matrix()

    def histories(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """item_idx int32 of `users` on end, oldest first, and their offsets int64 [b + 1]."""
        return self.events.histories(users)

    def mask(self, scores: np.ndarray, users: np.ndarray) -> None:
        """Set to -inf, in place, what the users met and what is outside the catalogue."""
        met = self.met[users]
        scores[np.repeat(np.arange(len(users)), np.diff(met.indptr)), met.indices] = -np.inf
        scores[:, ~self.catalogue] = -np.inf


@dataclass(frozen=True)
class Lists:
    """Ranked lists, best first: item_idx int32 [U, K], -1 at the end of a short one, and scores."""

    items: np.ndarray
    scores: np.ndarray  # float32 [U, K], -inf where items is -1


class TowerScorer:
    """The two-tower: a user's history through the tower, times the item vectors."""

    def __init__(self, model_dir: Path, known: Known) -> None:
        """model_dir: what `UserTower.save` wrote."""
        self._tower = load_tower(model_dir)
        self._item_vectors = self._tower.item_vectors.numpy()
        self._known = known

    def __call__(self, users: np.ndarray) -> np.ndarray:
        """Scores float32 [b, I] of user_idx int [b]."""
        vectors = self._tower.encode_ragged(*self._known.histories(users), users)
        return vectors @ self._item_vectors.T


@dataclass(frozen=True)
class RankedScorer:
    """A retrieval model whose best `n_candidates` the ranker puts in order, as serving does.

    Everything but the candidates scores -inf.
    """

    retrieval: Scorer
    known: Known
    ranker: RankingModel
    inputs: CatalogueInputs
    user_features: np.ndarray  # float32 [all users, len(USER_INPUTS)]
    n_candidates: int = 200

    def __call__(self, users: np.ndarray) -> np.ndarray:
        """Scores float32 [b, I] of user_idx int [b]."""
        retrieved = rank_catalogue(self.retrieval, users, self.known, self.n_candidates)
        history, offsets = self.known.histories(users)
        rows = ranker_features(
            self.inputs,
            retrieved.items,
            retrieved.scores,
            history,
            offsets,
            self.user_features[users],
        )
        found = retrieved.items >= 0
        scores = np.full((len(users), self.known.events.n_items), -np.inf, dtype=np.float32)
        user, slot = np.nonzero(found)
        scores[user, retrieved.items[user, slot]] = self.ranker.predict(rows[found.ravel()])
        return scores


@dataclass(frozen=True)
class Evaluation:
    """Lists of every model for the users of TEST, and how good they are."""

    dataset: Dataset
    split: Split
    seed: int
    ks: tuple[int, ...]
    users: np.ndarray  # user_idx int32 [U], ascending
    lists: dict[str, Lists]
    metrics: dict[str, dict[str, Interval]]  # model -> "ndcg@10" -> Interval
    slices: dict[str, list[dict[str, Any]]]  # model -> by, name, users and metrics of each slice
    gains: dict[tuple[str, str], dict[str, Interval]]  # model, another -> "ndcg@10" -> the gain

    @cached_property
    def n_recommendable(self) -> int:
        """Items of the catalogue that could be recommended."""
        return int(self.split.catalogue.sum())

    def to_json(self) -> dict[str, Any]:
        """The document that `marquee evaluate --json` prints."""
        return {
            "protocol": self.split.protocol,
            "split_hash": self.split.hash,
            "k_core": self.split.k_core,
            "split_seed": self.split.seed,
            "seed": self.seed,
            "users": len(self.users),
            "catalogue": self.n_recommendable,
            "models": {
                name: {metric: vars(interval) for metric, interval in metrics.items()}
                for name, metrics in self.metrics.items()
            },
            "gains": [
                {"model": model, "over": other}
                | {metric: vars(interval) for metric, interval in gains.items()}
                for (model, other), gains in self.gains.items()
            ],
            "slices": self.slices,
        }


def fold_events(dataset: Dataset, split: Split, *folds: int) -> Events:
    """The events of some folds of a split, in the data set's order."""
    return events_where(dataset, np.isin(split.fold, folds))


def events_where(dataset: Dataset, kept: np.ndarray) -> Events:
    """The events marked by `kept` (bool [E]), in the data set's order."""
    return Events(
        user=dataset.user[kept],
        item=dataset.item[kept],
        timestamp=dataset.timestamp[kept] if dataset.has_time else None,
        n_users=dataset.n_users,
        n_items=dataset.n_items,
    )


def evaluate(
    dataset: Dataset,
    split: Split,
    models: Mapping[str, Scorer],
    *,
    ks: Sequence[int] = (5, 10, 20, 50, 100),
    compared: Sequence[tuple[str, str]] = (),
    seed: int = 0,
) -> Evaluation:
    """Rank the catalogue by each model for every user with TEST events, and measure the lists.

    models: fitted on TRAIN + VALIDATION, or on less. ks: lengths of list to measure at.
    compared: names of models, each with the name of one whose NDCG it should exceed, user by user.
    seed: draws the bootstrap's users, the same for every model.
    """
    known = Known.of(dataset, split)
    held_out = fold_events(dataset, split, TEST)
    users = np.unique(held_out.user)
    relevant, offsets = held_out.histories(users)
    ks = tuple(sorted(set(ks)))
    genres = genre_matrix(dataset.items["genres"].to_pylist())[1]
    parts = _slices(dataset, known, users)
    lists, metrics, slices, ndcg = {}, {}, {}, {}
    for name, model in models.items():
        lists[name] = rank_catalogue(model, users, known, ks[-1])
        items = lists[name].items
        hits = hit_matrix(items, relevant, offsets, dataset.n_items)
        ndcg[name] = {f"ndcg@{k}": user_metrics(hits, np.diff(offsets), k)["ndcg"] for k in ks}
        metrics[name] = summarise(
            items,
            hits,
            np.diff(offsets),
            known.catalogue,
            cutoffs=ks,
            seed=seed,
            genres=genres if genres.shape[1] else None,
        )
        slices[name] = [_measured(part, items, relevant, offsets, ks, seed) for part in parts]
    gains = {
        (name, other): {
            metric: gain_interval(ndcg[other][metric], after, seed=seed)
            for metric, after in ndcg[name].items()
        }
        for name, other in compared
    }
    return Evaluation(dataset, split, seed, ks, users, lists, metrics, slices, gains)


def _slices(dataset: Dataset, known: Known, users: np.ndarray) -> list[Slice]:
    """The slices of test users and of the catalogue, by what is known before TEST."""
    events = known.events
    first_met = None
    if events.timestamp is not None:
        order = np.argsort(events.timestamp, kind="stable")
        first_met = np.zeros(dataset.n_items)
        first_met[events.item[order][::-1]] = np.arange(len(order))[::-1] / len(order)
    lengths = np.diff(events.histories(users)[1])
    counts = np.bincount(events.item, minlength=dataset.n_items)
    return make_slices(lengths, counts, first_met)


def _measured(
    part: Slice,
    items: np.ndarray,
    relevant: np.ndarray,
    offsets: np.ndarray,
    ks: tuple[int, ...],
    seed: int,
) -> dict[str, Any]:
    """A slice of a model's lists as JSON has it."""
    n_users, metrics = measure(part, items, relevant, offsets, cutoffs=ks, seed=seed)
    figures = {name: vars(interval) for name, interval in metrics.items()}
    return {"by": part.by, "name": part.name, "users": n_users, "metrics": figures}


def rank_catalogue(model: Scorer, users: np.ndarray, known: Known, k: int) -> Lists:
    """Each user's `k` best items of the catalogue that the user has not met.

    users: user_idx int [U]. Equal scores are ordered by item_idx.
    """
    at_once = max(_SCORES_AT_ONCE // known.events.n_items, 1)
    items = np.full((len(users), k), -1, dtype=np.int32)
    best = np.full((len(users), k), -np.inf, dtype=np.float32)
    for start in range(0, len(users), at_once):
        chunk = slice(start, start + at_once)
        scores = model(users[chunk])
        known.mask(scores, users[chunk])
        items[chunk], best[chunk] = _top(scores, k)
    return Lists(items, best)


def dump(evaluation: Evaluation, directory: Path) -> None:
    """Write what the numbers were computed from, in the input's own ids.

    train.parquet and holdout.parquet (user_id, item_id) hold TRAIN + VALIDATION and TEST;
    recommendations.parquet (model, user_id, rank from 1, item_id, score) every model's lists.
    The directory is replaced as a whole; UserError when it holds something else.
    """
    dataset, split = evaluation.dataset, evaluation.split
    with staged_directory(directory, marker=DUMP_MARKER) as staging:
        for name, folds in (("train", (TRAIN, VALIDATION)), ("holdout", (TEST,))):
            events = fold_events(dataset, split, *folds)
            columns = {
                "user_id": dataset.users["user_id"].take(pa.array(events.user)),
                "item_id": dataset.items["item_id"].take(pa.array(events.item)),
            }
            pq.write_table(pa.table(columns), staging / f"{name}.parquet")
        tables = [_recommendations(evaluation, name) for name in evaluation.lists]
        pq.write_table(pa.concat_tables(tables), staging / DUMP_MARKER)


def _top(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` highest finite scores of each row [b, I], ties by column: columns and scores."""
    k_here = min(k, scores.shape[1])
    threshold = np.partition(scores, -k_here, axis=1)[:, -k_here, None]
    # At least k entries of a row, and more than k only where some tie with the k-th.
    row, column = np.nonzero((scores >= threshold) & (scores > -np.inf))
    value = scores[row, column]
    order = np.lexsort((column, -value, row))
    row, column, value = row[order], column[order], value[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    inside = rank < k
    items = np.full((len(scores), k), -1, dtype=np.int32)
    best = np.full((len(scores), k), -np.inf, dtype=np.float32)
    items[row[inside], rank[inside]] = column[inside]
    best[row[inside], rank[inside]] = value[inside]
    return items, best


def _recommendations(evaluation: Evaluation, model: str) -> pa.Table:
    lists = evaluation.lists[model]
    user, place = np.nonzero(lists.items >= 0)
    items = lists.items[user, place]
    return pa.table(
        {
            "model": pa.array([model]).take(pa.array(np.zeros(len(user), dtype=np.int32))),
            "user_id": evaluation.dataset.users["user_id"].take(pa.array(evaluation.users[user])),
            "rank": pa.array((place + 1).astype(np.int32)),
            "item_id": evaluation.dataset.items["item_id"].take(pa.array(items)),
            "score": pa.array(lists.scores[user, place]),
        }
    )
