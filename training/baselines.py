"""What a model has to beat: chance, popularity, recent popularity, EASE, iALS and BPR.

Each baseline is fitted on events given as user and item indices, and returns a `Scorer`, which
gives float32 [B, I] scores of the whole catalogue for B users by index.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from training.errors import UserError

Scorer = Callable[[np.ndarray], np.ndarray]

EASE_LAMBDA = 500.0
EASE_MAX_ITEMS = 20_000  # a dense matrix of 20,000 x 20,000 floats is 1.6 GB
RECENT_SHARE = 0.1


@dataclass(frozen=True)
class Events:
    """What a baseline is fitted on, E events ordered by user.

    user, item: int32 [E]. timestamp: int64 [E] in unix seconds, or None where the data has none.
    """

    user: np.ndarray
    item: np.ndarray
    timestamp: np.ndarray | None
    n_users: int
    n_items: int

    def matrix(self) -> sparse.csr_matrix:
        """1 where the user met the item, float32 [U, I]."""
        shape = (self.n_users, self.n_items)
        ones = np.ones(len(self.user), dtype=np.float32)
        met = sparse.csr_matrix((ones, (self.user, self.item)), shape=shape)
        met.data[:] = 1  # repeats were summed
        return met

    def histories(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """item_idx int32 of `users` (user_idx int [b]) on end, in order, and offsets int64 [b + 1].

        The items of users[i] are those from offsets[i] to offsets[i + 1].
        """
        starts = np.searchsorted(self.user, users)
        lengths = np.searchsorted(self.user, users, side="right") - starts
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return self.item[rows], offsets


def popularity(events: Events, seed: int) -> Scorer:
    """The number of events of an item, the same for every user."""
    return _same_for_all(np.bincount(events.item, minlength=events.n_items))


def recent_popularity(events: Events, seed: int) -> Scorer:
    """Popularity where an event loses half its weight every half-life: see `recency_weights`."""
    if events.timestamp is None:
        raise UserError("recent-popularity needs time, and the data has none: leave it out")
    weights = recency_weights(events.timestamp)
    return _same_for_all(np.bincount(events.item, weights, minlength=events.n_items))


def recency_weights(timestamp: np.ndarray) -> np.ndarray:
    """Weights float64 [E], 1 for the last event, halving with age.

    The half-life is the time that the last tenth of the events took (a day at least), so that it
    adapts to data of a day or of twenty years.
    """
    last = timestamp.max()
    half_life_s = max(float(last - np.quantile(timestamp, 1 - RECENT_SHARE)), 86_400.0)
    return np.exp2(-(last - timestamp) / half_life_s)


def ease(events: Events, seed: int) -> Scorer:
    """EASE (Steck, Embarrassingly Shallow Autoencoders for Sparse Data, 2019), lambda 500."""
    if events.n_items > EASE_MAX_ITEMS:
        raise UserError(
            f"ease inverts a dense matrix of items x items and takes {EASE_MAX_ITEMS} items at "
            f"most, the data has {events.n_items}: leave it out of --models"
        )
    met = events.matrix()
    gram = (met.T @ met).toarray()
    gram[np.diag_indices_from(gram)] += EASE_LAMBDA
    # Single precision is enough: lambda keeps the smallest eigenvalue at 500 and above.
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return lambda users: np.asarray(met[users] @ weights)


@dataclass(frozen=True)
class IalsSettings:
    """What iALS is tuned by, and what it has untuned."""

    factors: int = 128
    alpha: float = 1.0
    regularization: float = 0.05


def ials(events: Events, seed: int, settings: IalsSettings | None = None) -> Scorer:
    """Implicit ALS (Hu, Koren, Volinsky, 2008), 15 iterations; untuned without `settings`."""
    from implicit.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    # implicit runs its own threads; BLAS threads inside them make it several times slower.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            **vars(settings or IalsSettings()), iterations=15, random_state=seed
        )
        model.fit(events.matrix(), show_progress=False)
    return lambda users: model.user_factors[users] @ model.item_factors.T


def bpr(events: Events, seed: int) -> Scorer:
    """Matrix factorisation under BPR (Rendle et al., 2009): 64 factors, 60 passes, untuned."""
    from implicit.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(
        factors=64, learning_rate=0.05, regularization=0.01, iterations=60, random_state=seed,
        num_threads=1,  # several draw in an order of their own
    )  # fmt: skip
    model.fit(events.matrix(), show_progress=False)
    return lambda users: model.user_factors[users] @ model.item_factors.T


def random(events: Events, seed: int) -> Scorer:
    """Scores without any sense, the same for a user whoever is asked with it."""

    def score(users: np.ndarray) -> np.ndarray:
        rows = [np.random.default_rng((seed, int(user))).random(events.n_items) for user in users]
        return np.array(rows, dtype=np.float32).reshape(len(users), events.n_items)

    return score


BASELINES: dict[str, Callable[[Events, int], Scorer]] = {
    "random": random,
    "popularity": popularity,
    "recent-popularity": recent_popularity,
    "ease": ease,
    "ials": ials,
    "bpr": bpr,
}


def _same_for_all(scores: np.ndarray) -> Scorer:
    row = scores.astype(np.float32)
    return lambda users: np.broadcast_to(row, (len(users), len(row))).copy()
