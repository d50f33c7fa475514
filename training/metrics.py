"""Ranking metrics with binary relevance, per user, and bootstrap intervals over users.

U users, K the length of a recommendation list. `hits` (bool [U, K]) marks which of a user's
recommendations, best first, are among the user's relevant items; `n_relevant` (int [U]) counts
those, and is at least 1. All definitions are those of full-catalogue ranking: nothing is sampled.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

RESAMPLES = 1000
SPREAD_RESAMPLES = 200  # of what is not a mean over users, and costs more
_TAIL_PERCENT = 2.5  # on either side of a 95% interval


@dataclass(frozen=True)
class Interval:
    """A mean over users and its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def as_gain(self) -> str:
        """For people, of what should be above zero."""
        return f"{self.value:+.4f} ({self.low:+.4f} to {self.high:+.4f})"


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


def diversity(recommended: np.ndarray, genres: np.ndarray, k: int) -> np.ndarray:
    """Intra-list diversity float64 [U]: 1 - the mean cosine of two of the first k items' genres.

    genres: float [I, G], any row-scaled multi-hot; an item without genres is like no other. A list
    of fewer than two items has no diversity, 0.
    """
    length = np.linalg.norm(genres, axis=1, keepdims=True)
    unit = np.vstack([genres / np.maximum(length, 1e-12), np.zeros((1, genres.shape[1]))])
    whole, alone = np.zeros((len(recommended), genres.shape[1])), np.zeros(len(recommended))
    for place in recommended[:, :k].T:  # an empty place, -1, is the row of zeros
        whole += unit[place]
        alone += np.square(unit[place]).sum(axis=1)
    together = np.square(whole).sum(axis=1)
    n = (recommended[:, :k] >= 0).sum(axis=1)
    pairs = n * (n - 1)
    return np.where(pairs > 0, 1 - (together - alone) / np.maximum(pairs, 1), 0.0)


def gini(counts: np.ndarray) -> float:
    """How unevenly recommendations fall on the catalogue: 0 all alike, towards 1 all on one item.

    counts: how often each item of the catalogue was recommended, [I], at least one above 0.
    """
    ordered = np.sort(counts)
    n = len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))


def auc(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Chance that a relevant pair scores above another, ties half; scores [N], relevant bool [N].

    NaN where there are only relevant pairs, or none.
    """
    values, place = np.unique(scores, return_inverse=True)
    good = np.bincount(place[relevant], minlength=len(values)).astype(np.float64)
    bad = np.bincount(place[~relevant], minlength=len(values)).astype(np.float64)
    if not good.sum() or not bad.sum():
        return float("nan")
    below = np.cumsum(bad) - bad
    return float(good @ (below + bad / 2) / (good.sum() * bad.sum()))


def log_loss(chance: np.ndarray, relevant: np.ndarray) -> float:
    """Mean -log of the probability given to what came: chance float [N] of relevant bool [N]."""
    chance = np.clip(chance, 1e-7, 1 - 1e-7)
    return float(-np.where(relevant, np.log(chance), np.log1p(-chance)).mean())


def summarise(
    recommended: np.ndarray,
    hits: np.ndarray,
    n_relevant: np.ndarray,
    catalogue: np.ndarray,
    *,
    cutoffs: tuple[int, ...],
    seed: int,
    genres: np.ndarray | None = None,
) -> dict[str, Interval]:
    """Every metric at every cut-off, keyed `name@k`, with coverage and Gini beside them.

    recommended: item_idx int [U, K], -1 for an empty place. catalogue: bool [I].
    genres: as in `diversity`; None leaves it out.
    The same seed draws the same users, so that the intervals of several models are paired.
    """
    columns: dict[str, np.ndarray] = {}
    for k in cutoffs:
        for name, values in user_metrics(hits, n_relevant, k).items():
            columns[f"{name}@{k}"] = values
        if genres is not None and k > 1:
            columns[f"diversity@{k}"] = diversity(recommended, genres, k)
    summary = mean_intervals(columns, seed=seed)
    for k in cutoffs:
        lists = _list_matrix(recommended[:, :k], len(catalogue))[:, catalogue]
        for name, interval in _spread(lists, seed).items():
            summary[f"{name}@{k}"] = interval
    return summary


def mean_intervals(columns: dict[str, np.ndarray], *, seed: int) -> dict[str, Interval]:
    """The mean of each column (float [U], the same users) with its interval."""
    table = np.stack(list(columns.values()), axis=1)
    rng = np.random.default_rng(seed)
    means = np.empty((RESAMPLES, len(columns)))
    for resample in range(RESAMPLES):
        count = np.bincount(rng.integers(0, len(table), len(table)), minlength=len(table))
        means[resample] = count @ table / len(table)
    low, high = np.percentile(means, [_TAIL_PERCENT, 100 - _TAIL_PERCENT], axis=0)
    return {
        name: Interval(float(columns[name].mean()), float(low[index]), float(high[index]))
        for index, name in enumerate(columns)
    }


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


def _spread(lists: sparse.csr_matrix, seed: int) -> dict[str, Interval]:
    """Coverage and Gini of lists [U, items of the catalogue], with intervals."""
    rng = np.random.default_rng(seed)
    users = lists.shape[0]
    drawn = np.empty((2, SPREAD_RESAMPLES))
    for resample in range(SPREAD_RESAMPLES):
        count = np.bincount(rng.integers(0, users, users), minlength=users)
        drawn[:, resample] = _coverage_and_gini(count @ lists)
    value = _coverage_and_gini(np.ones(users) @ lists)
    return {
        name: _centred(value[index], drawn[index])
        for index, name in enumerate(("coverage", "gini"))
    }


def _coverage_and_gini(counts: np.ndarray) -> tuple[float, float]:
    covered = np.count_nonzero(counts) / max(len(counts), 1)
    return covered, gini(counts) if covered else 0.0


def _centred(value: float, resampled: np.ndarray) -> Interval:
    """The interval's width from resamples, around `value`.

    A resample holds only two thirds of the distinct users, hence fewer distinct items: its
    coverage and Gini are biased, their spread is not.
    """
    low, high = np.percentile(resampled - resampled.mean(), [_TAIL_PERCENT, 100 - _TAIL_PERCENT])
    return Interval(value, max(value + float(low), 0.0), min(value + float(high), 1.0))
