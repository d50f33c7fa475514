"""What the ranker reads of a user, from sums over the user's events: one definition for preparing,
training and serving. Sums add up, so events that came since are added to those of before.

Shape legend: U users. Unknown values are NaN.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.model.ranking import USER_INPUTS

DAY_S = 86_400
MONTH_S = 30.4375 * DAY_S  # a twelfth of a Julian year

# Feedback that counts as an event of a data set: what a user chose. A dislike takes back what the
# user did with the item before. An item counts once, at the first of these (docs/events.md).
POSITIVE_EVENTS = ("click", "watch", "like")
WITHDRAWN_BY = "dislike"

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class UserTotals:
    """Sums over events, each float64 [U]. Times are unix seconds, inf and -inf (or NaN) without."""

    n_events: Doubles
    n_rated: Doubles
    rating_sum: Doubles
    rating_square_sum: Doubles
    first_time: Doubles
    last_time: Doubles

    def with_unrated(self, count: Doubles, first: Doubles, last: Doubles) -> "UserTotals":
        """With `count` events more, from `first` to `last`; NaN where there are none."""
        return UserTotals(
            self.n_events + count,
            self.n_rated,
            self.rating_sum,
            self.rating_square_sum,
            np.fmin(self.first_time, first),
            np.fmax(self.last_time, last),
        )


def user_inputs(totals: UserTotals, now: Doubles) -> NDArray[np.float32]:
    """USER_INPUTS float32 [U, len(USER_INPUTS)]. now: [U], what recency is measured from."""
    mean, std = moments(totals.n_rated, totals.rating_sum, totals.rating_square_sum)
    columns = {
        "rating_mean": mean,
        "rating_std": std,
        "velocity_per_month": velocity(totals.n_events, totals.first_time, totals.last_time),
        "recency_days": recency(totals.last_time, now),
    }
    return np.stack([columns[name] for name in USER_INPUTS], axis=1).astype(np.float32)


def moments(n: Doubles, total: Doubles, squares: Doubles) -> tuple[Doubles, Doubles]:
    """Mean and population standard deviation; NaN where n is 0."""
    mean = divided(total, n)
    return mean, np.sqrt(np.maximum(divided(squares, n) - mean**2, 0.0))


def velocity(n_events: Doubles, first_time: Doubles, last_time: Doubles) -> Doubles:
    """Events a month. A burst of one evening is no rate: the span counts as a month at least."""
    span: Doubles = np.maximum((_finite(last_time) - _finite(first_time)) / MONTH_S, 1.0)
    return n_events / span


def recency(last_time: Doubles, now: float | Doubles) -> Doubles:
    """Days from the last event to `now`."""
    return (now - _finite(last_time)) / DAY_S


def divided(total: Doubles, n: Doubles) -> Doubles:
    """total / n, NaN where n is 0."""
    quotient: Doubles = np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)
    return quotient


def _finite(value: Doubles) -> Doubles:
    return np.where(np.isinf(value), np.nan, value)
