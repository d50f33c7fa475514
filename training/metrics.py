"""Ranking metrics with binary relevance, per user, and bootstrap intervals over users.

U users, K the length of a recommendation list. `hits` (bool [U, K]) marks which of a user's
recommendations, best first, are among the user's relevant items; `n_relevant` (int [U]) counts
those, and is at least 1. All definitions are those of full-catalogue ranking: nothing is sampled.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

RESAMPLES = 1000
_TAIL_PERCENT = 2.5  # on either side of a 95% interval


@dataclass(frozen=True)
class Interval:
    """A mean over users and its 95% interval."""

    value: float
    low: float
    high: float


def hit_matrix(
    recommended: np.ndarray, relevant: np.ndarray, offsets: np.ndarray, n_items: int
) -> np.ndarray:
    """`hits` bool [U, K] of recommended item_idx int [U, K], -1 for an empty place.

    relevant: item_idx of all users on end; user u's are relevant[offsets[u]:offsets[u + 1]].
    """
    users = len(recommended)
    owner = np.repeat(np.arange(users), np.diff(offsets))
    wanted = owner * n_items + relevant
    keys = np.arange(users)[:, None] * n_items + recommended
    return np.isin(keys, wanted) & (recommended >= 0)


def user_metrics(hits: np.ndarray, n_relevant: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Metrics at cut-off k, each float64 [U].

    ndcg: DCG over the best DCG possible with min(k, relevant) hits.
    recall: hits over relevant. recall_min: hits over min(k, relevant).
    hit: whether there is any. precision: hits over k. mrr: 1 / rank of the first.
    map: precision at every hit, summed, over min(k, relevant).
    """
    hits = hits[:, :k].astype(np.float64)
    places = np.arange(1, hits.shape[1] + 1)
    found = hits.sum(axis=1)
    possible = np.minimum(k, n_relevant)
    discount = 1 / np.log2(np.arange(2, k + 2))
    precision_at = np.cumsum(hits, axis=1) / places
    return {
        "ndcg": hits @ discount[: hits.shape[1]] / np.cumsum(discount)[possible - 1],
        "recall": found / n_relevant,
        "recall_min": found / possible,
        "hit": (found > 0).astype(np.float64),
        "precision": found / k,
        "map": (hits * precision_at).sum(axis=1) / possible,
        "mrr": (hits / places).max(axis=1, initial=0),
    }


def summarise(
    recommended: np.ndarray,
    hits: np.ndarray,
    n_relevant: np.ndarray,
    catalogue: np.ndarray,
    *,
    cutoffs: tuple[int, ...],
    seed: int,
) -> dict[str, Interval]:
    """Every metric at every cut-off, keyed `name@k`, with coverage beside them.

    recommended: item_idx int [U, K], -1 for an empty place. catalogue: bool [I].
    The same seed draws the same users, so that the intervals of several models are paired.
    """
    columns: dict[str, np.ndarray] = {}
    for k in cutoffs:
        for name, values in user_metrics(hits, n_relevant, k).items():
            columns[f"{name}@{k}"] = values
    table = np.stack(list(columns.values()), axis=1)
    lists = {k: _list_matrix(recommended[:, :k], len(catalogue)) for k in cutoffs}
    size = max(int(catalogue.sum()), 1)

    rng = np.random.default_rng(seed)
    means = np.empty((RESAMPLES, len(columns)))
    coverages = {k: np.empty(RESAMPLES) for k in cutoffs}
    for resample in range(RESAMPLES):
        drawn = rng.integers(0, len(table), len(table))
        count = np.bincount(drawn, minlength=len(table)).astype(np.float64)
        means[resample] = count @ table / len(table)
        for k in cutoffs:
            coverages[k][resample] = np.count_nonzero(count @ lists[k]) / size

    low, high = np.percentile(means, [_TAIL_PERCENT, 100 - _TAIL_PERCENT], axis=0)
    summary = {
        name: Interval(float(columns[name].mean()), float(low[index]), float(high[index]))
        for index, name in enumerate(columns)
    }
    for k in cutoffs:
        covered = len(np.unique(recommended[:, :k][recommended[:, :k] >= 0])) / size
        summary[f"coverage@{k}"] = _centred(covered, coverages[k])
    return summary


def gain_interval(before: np.ndarray, after: np.ndarray, *, seed: int) -> Interval:
    """Mean of after - before (float [U], the same users) with its paired interval."""
    gain = after - before
    rng = np.random.default_rng(seed)
    means = [gain[rng.integers(0, len(gain), len(gain))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [_TAIL_PERCENT, 100 - _TAIL_PERCENT])
    return Interval(float(gain.mean()), float(low), float(high))


def _list_matrix(recommended: np.ndarray, n_items: int) -> sparse.csr_matrix:
    """Which items (columns) are in each user's list (rows)."""
    user, place = np.nonzero(recommended >= 0)
    item = recommended[user, place]
    shape = (len(recommended), n_items)
    return sparse.csr_matrix((np.ones(len(user)), (user, item)), shape=shape)


def _centred(value: float, resampled: np.ndarray) -> Interval:
    """The interval's width from resamples, around `value`.

    A resample holds only two thirds of the distinct users, hence fewer distinct items: its
    coverage is biased, its spread is not.
    """
    low, high = np.percentile(resampled - resampled.mean(), [_TAIL_PERCENT, 100 - _TAIL_PERCENT])
    return Interval(value, max(value + float(low), 0.0), min(value + float(high), 1.0))
