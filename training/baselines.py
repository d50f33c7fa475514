"""Models to compare with: two popularities and two linear-algebra classics, no tuning.

Shape legend: U users, I items, E events, b users asked for at once. Every model is fitted on the
same events and gives a score to every item, seen or not; masking is the evaluation's affair.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import numpy as np
from scipy import linalg, sparse
from threadpoolctl import threadpool_limits

from training.errors import UserError

HALF_LIFE_SHARE = 1 / 50
"""Half-life of recent popularity, as a share of the time from the first event to the last."""

EASE_REGULARISATION = 500.0
EASE_MOST_ITEMS = 25_000  # its I x I matrix then takes 5 GB, twice

IALS_FACTORS = 128
IALS_ITERATIONS = 15
IALS_REGULARISATION = 0.05
IALS_ALPHA = 1.0


class Scorer(Protocol):
    """Anything that ranks: the higher the score, the better; -inf is never recommended."""

    def scores(self, users: np.ndarray) -> np.ndarray:
        """Scores float32 [b, I] of all items for user_idx int [b]."""


@dataclass(frozen=True)
class Interactions:
    """Who met what: parallel arrays [E], by user, each user's oldest first."""

    user: np.ndarray  # int32
    item: np.ndarray  # int32
    timestamp: np.ndarray  # int64 unix seconds, all 0 where unknown
    n_users: int
    n_items: int

    @cached_property
    def offsets(self) -> np.ndarray:
        """int64 [U + 1]: the events of user u are offsets[u]:offsets[u + 1]."""
        return np.searchsorted(self.user, np.arange(self.n_users + 1))

    @cached_property
    def matrix(self) -> sparse.csr_matrix:
        """float32 [U, I]: 1 for every pair that met, once or more often."""
        ones = np.ones(len(self.user), dtype=np.float32)
        shape = (self.n_users, self.n_items)
        matrix = sparse.csr_matrix((ones, (self.user, self.item)), shape=shape)
        matrix.data[:] = 1
        return matrix

    def histories(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """item_idx int32 of `users` on end, oldest first, and their offsets int64 [b + 1]."""
        starts, lengths = self.offsets[users], np.diff(self.offsets)[users]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return self.item[rows], offsets


class Popularity:
    """The number of users an item met, the same for everybody."""

    def __init__(self, score: np.ndarray) -> None:
        """score: float32 [I]."""
        self._score = score

    @classmethod
    def fit(cls, events: Interactions, seed: int = 0) -> Self:
        return cls(np.asarray(events.matrix.sum(axis=0), dtype=np.float32).ravel())

    def scores(self, users: np.ndarray) -> np.ndarray:
        return np.tile(self._score, (len(users), 1))


class RecentPopularity(Popularity):
    """Popularity in which an event counts half as much for every half-life that has passed.

    The half-life is HALF_LIFE_SHARE of the events' time range. Without time it is `Popularity`.
    """

    @classmethod
    def fit(cls, events: Interactions, seed: int = 0) -> Self:
        age = events.timestamp.max() - events.timestamp
        half_life = max(float(age.max()) * HALF_LIFE_SHARE, 1.0)
        weight = np.exp2(-age / half_life)
        score = np.bincount(events.item, weight, minlength=events.n_items)
        return cls(score.astype(np.float32))


class Ease:
    """EASE: item-to-item weights in closed form (Steck, 2019, arXiv:1905.03375).

    B = I - P diag(1 / diag P) with P the inverse of the regularised Gram matrix; the score of an
    item is the sum of its weights from the items met.
    """

    def __init__(self, events: Interactions, known: np.ndarray, weights: np.ndarray) -> None:
        """known: item_idx [J] of the items with events. weights: float32 [J, J]."""
        self._matrix = events.matrix[:, known]
        self._known = known
        self._weights = weights
        self._n_items = events.n_items

    @classmethod
    def fit(cls, events: Interactions, seed: int = 0) -> Self:
        """UserError when the items with events are too many for a dense matrix of their pairs."""
        known = np.unique(events.item)
        if len(known) > EASE_MOST_ITEMS:
            raise UserError(
                f"ease cannot be fitted on {len(known):,} items (at most {EASE_MOST_ITEMS:,}): "
                f"leave it out of --models"
            )
        matrix = events.matrix[:, known]
        gram = (matrix.T @ matrix).toarray().astype(np.float64)
        gram[np.diag_indices_from(gram)] += EASE_REGULARISATION
        inverse = linalg.inv(gram, overwrite_a=True, check_finite=False, assume_a="pos")
        weights = inverse / -np.diag(inverse)
        np.fill_diagonal(weights, 0)
        return cls(events, known, weights.astype(np.float32))

    def scores(self, users: np.ndarray) -> np.ndarray:
        scores = np.zeros((len(users), self._n_items), dtype=np.float32)
        scores[:, self._known] = self._matrix[users] @ self._weights
        return scores


class Ials:
    """Implicit-feedback matrix factorisation by alternating least squares (Hu et al., 2008)."""

    def __init__(self, user_factors: np.ndarray, item_factors: np.ndarray) -> None:
        """Both float32, [U, IALS_FACTORS] and [I, IALS_FACTORS]."""
        self._user_factors = user_factors
        self._item_factors = item_factors

    @classmethod
    def fit(cls, events: Interactions, seed: int = 0) -> Self:
        from implicit.cpu.als import AlternatingLeastSquares

        model = AlternatingLeastSquares(
            factors=IALS_FACTORS,
            regularization=IALS_REGULARISATION,
            alpha=IALS_ALPHA,
            iterations=IALS_ITERATIONS,
            random_state=seed,
        )
        # implicit has its own threads; a BLAS that forks inside them slows it down many times.
        with threadpool_limits(1, "blas"):
            model.fit(events.matrix, show_progress=False)
        return cls(model.user_factors, model.item_factors)

    def scores(self, users: np.ndarray) -> np.ndarray:
        return self._user_factors[users] @ self._item_factors.T


BASELINES: Mapping[str, Callable[[Interactions, int], Scorer]] = {
    "popularity": Popularity.fit,
    "recent-popularity": RecentPopularity.fit,
    "ease": Ease.fit,
    "ials": Ials.fit,
}
"""How to fit each baseline on events, with a seed."""
