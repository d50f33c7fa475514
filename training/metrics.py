"""Metrics of ranked lists against what users went on to do: binary relevance, whole catalogue.

Shape legend: U users, K length of the lists, M metrics. A list holds item_idx best first and ends
in -1 where a user had fewer than K items to be offered. The relevant items of user u are
``relevant[offsets[u]:offsets[u + 1]]``, each once.

The ideal list has min(k, |relevant|) hits: that is what NDCG and MAP are divided by. Recall comes
with both denominators in use: ``recall`` is hits / |relevant|, ``recall_min`` is
hits / min(k, |relevant|). Dividing NDCG by the hits a list happens to have would be another,
larger number, and is not computed.
"""

import numpy as np

_WEIGHTS_AT_ONCE = 4_000_000  # elements of the resampling matrix held in memory


def hits(lists: np.ndarray, relevant: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Whether each entry of the lists (int [U, K]) is relevant to its user: bool [U, K]."""
    users = np.arange(len(lists), dtype=np.int64)
    width = max(int(lists.max(initial=0)), int(relevant.max(initial=0))) + 1
    wanted = np.repeat(users, np.diff(offsets)) * width + relevant
    # An unfilled place would otherwise be the last item of the user before.
    return np.isin(users[:, None] * width + lists, wanted) & (lists >= 0)


def user_metrics(hit: np.ndarray, n_relevant: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Each metric at `k` of every user, float64 [U], by name; their means are what is reported.

    hit: bool [U, K], K >= k. n_relevant: int [U], at least 1.
    """
    hit = hit[:, :k].astype(np.float64)
    rank = np.arange(1, k + 1)
    discount = 1 / np.log2(rank + 1)
    reachable = np.minimum(n_relevant, k)
    found = hit.sum(axis=1)
    return {
        "ndcg": hit @ discount / np.cumsum(discount)[reachable - 1],
        "recall": found / n_relevant,
        "recall_min": found / reachable,
        "hit": (found > 0).astype(np.float64),
        "precision": found / k,
        "map": (np.cumsum(hit, axis=1) / rank * hit).sum(axis=1) / reachable,
        "mrr": (hit / rank).max(axis=1),
    }


def coverage(lists: np.ndarray, k: int, n_recommendable: int) -> float:
    """Share of the items that may be recommended that are in the first `k` of anybody's list."""
    shown = lists[:, :k]
    return len(np.unique(shown[shown >= 0])) / n_recommendable


def bootstrap(
    values: np.ndarray, *, seed: int, resamples: int = 1000, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of the mean over users: low and high, each float64 [M].

    values: float64 [U, M]. Users are drawn with replacement (Efron, 1979), the same users for
    every column and, with the same seed and U, for every call: models are compared on equal draws.
    """
    n_users = len(values)
    rng = np.random.default_rng(seed)
    shares = np.full(n_users, 1 / n_users)
    at_once = max(_WEIGHTS_AT_ONCE // n_users, 1)
    means = np.empty((resamples, values.shape[1]))
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        draws = rng.multinomial(n_users, shares, size=size)
        means[start : start + size] = draws.astype(np.float64) @ values / n_users
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high
