"""User, item and interaction features of events, vectorised.

Every function sees only the events that it is given, so features are point-in-time correct when
it is given the events before the cut-off: `prepare` describes the whole data set with them, and
training calls them again on the events of its fold.

E events, U users, I items, G genres. Unknown values are NaN in arrays and null in tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy import sparse

DAY_S = 86_400
MONTH_S = 30.4375 * DAY_S  # a twelfth of a Julian year

TOP_GENRES = 3

USER_FEATURES = (
    "n_events",
    "rating_mean",
    "rating_std",
    "rating_min",
    "rating_max",
    "top_genres",
    "velocity_per_month",
    "recency_days",
)
ITEM_FEATURES = ("n_events", "rating_mean", "rating_std", "log_popularity", "rating_trend")


def genre_matrix(genres: Sequence[Sequence[str] | None]) -> tuple[list[str], np.ndarray]:
    """Names of the genres [G], in alphabetical order, and the multi-hot matrix bool [I, G]."""
    names = sorted({name for row in genres if row for name in row})
    column = {name: index for index, name in enumerate(names)}
    matrix = np.zeros((len(genres), len(names)), dtype=bool)
    for index, row in enumerate(genres):
        for name in row or ():
            matrix[index, column[name]] = True
    return names, matrix


def user_features(
    user: np.ndarray,
    item: np.ndarray,
    rating: np.ndarray,
    timestamp: np.ndarray | None,
    *,
    n_users: int,
    genre_names: Sequence[str],
    genres: np.ndarray,
    now: int | None,
) -> pa.Table:
    """USER_FEATURES of every user, a table of `n_users` rows; users without events are null.

    user, item: int [E]. rating: float [E], NaN where unrated. timestamp: int64 [E] in unix
    seconds, or None. genres: bool [I, G]. now: the moment that recency is measured from.
    """
    count = np.bincount(user, minlength=n_users)
    mean, std = _mean_std(user, rating, n_users)
    low, high = _range(user, rating, n_users)
    velocity = recency = np.full(n_users, np.nan)
    if timestamp is not None and now is not None:
        first, last = _range(user, timestamp.astype(np.float64), n_users)
        # A burst of one evening is not a rate per month: the span counts as a month at least.
        velocity = count / np.maximum((last - first) / MONTH_S, 1.0)
        recency = (now - last) / DAY_S
    return pa.table(
        {
            "n_events": pa.array(count.astype(np.int32)),
            "rating_mean": _column(mean),
            "rating_std": _column(std),
            "rating_min": _column(low),
            "rating_max": _column(high),
            "top_genres": top_genres(user, item, n_users, genre_names, genres),
            "velocity_per_month": _column(velocity),
            "recency_days": _column(recency),
        }
    )


def top_genres(
    user: np.ndarray,
    item: np.ndarray,
    n_users: int,
    genre_names: Sequence[str],
    genres: np.ndarray,
) -> pa.Array:
    """Each user's most frequent genres, at most TOP_GENRES, as list<string> [U].

    Ties go to the genre that comes first in `genre_names`.
    """
    shape = (n_users, genres.shape[0])
    watched = sparse.csr_matrix((np.ones(len(user), np.int32), (user, item)), shape=shape)
    counts = (watched @ sparse.csr_matrix(genres.astype(np.int32))).toarray()  # [U, G]
    best = np.argsort(-counts, axis=1, kind="stable")[:, :TOP_GENRES]
    present = np.take_along_axis(counts, best, axis=1) > 0
    offsets = np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int32)
    names = pa.array(genre_names, pa.string()).take(pa.array(best[present]))
    return pa.ListArray.from_arrays(pa.array(offsets), names)


@dataclass(frozen=True)
class ItemSums:
    """What item features are made of, as sums [I] that add up over parts of the events."""

    n_events: np.ndarray
    n_rated: np.ndarray
    rating_sum: np.ndarray
    rating_square_sum: np.ndarray
    n_recent: np.ndarray  # rated events at or after the moment that halves the events
    recent_sum: np.ndarray

    @classmethod
    def of(
        cls,
        item: np.ndarray,
        rating: np.ndarray,
        timestamp: np.ndarray | None,
        *,
        n_items: int,
        halved_at: int | None,
    ) -> "ItemSums":
        """Sums of one part of the events. halved_at: see `halving_moment`; None without time."""
        rated = ~np.isnan(rating)
        item_rated, known = item[rated], rating[rated].astype(np.float64)
        recent = np.zeros(len(known), dtype=bool)
        if timestamp is not None and halved_at is not None:
            recent = timestamp[rated] >= halved_at
        return cls(
            n_events=np.bincount(item, minlength=n_items),
            n_rated=np.bincount(item_rated, minlength=n_items),
            rating_sum=np.bincount(item_rated, known, minlength=n_items),
            rating_square_sum=np.bincount(item_rated, known**2, minlength=n_items),
            n_recent=np.bincount(item_rated[recent], minlength=n_items),
            recent_sum=np.bincount(item_rated[recent], known[recent], minlength=n_items),
        )

    def features(self) -> pa.Table:
        """ITEM_FEATURES of every item, a table of I rows.

        rating_trend is the mean rating of the recent half of the events minus that of the old
        half; 0 for an item that lacks one of them.
        """
        mean, std = _moments(self.n_rated, self.rating_sum, self.rating_square_sum)
        n_old = self.n_rated - self.n_recent
        recent = _divide(self.recent_sum, self.n_recent)
        old = _divide(self.rating_sum - self.recent_sum, n_old)
        trend = np.where((self.n_recent > 0) & (n_old > 0), recent - old, 0.0)
        return pa.table(
            {
                "n_events": pa.array(self.n_events.astype(np.int32)),
                "rating_mean": _column(mean),
                "rating_std": _column(std),
                "log_popularity": pa.array(np.log1p(self.n_events).astype(np.float32)),
                "rating_trend": pa.array(trend.astype(np.float32)),
            }
        )


def item_features(
    item: np.ndarray, rating: np.ndarray, timestamp: np.ndarray | None, *, n_items: int
) -> pa.Table:
    """ITEM_FEATURES of every item, a table of `n_items` rows.

    item: int [E]. rating: float [E], NaN where unrated. timestamp: int64 [E] or None.
    """
    halved_at = None
    if timestamp is not None:
        halved_at = halving_moment(*np.unique(timestamp // DAY_S, return_counts=True))
    return ItemSums.of(item, rating, timestamp, n_items=n_items, halved_at=halved_at).features()


def halving_moment(days: np.ndarray, counts: np.ndarray) -> int | None:
    """The start of the day before which at most half of the events happened, in unix seconds.

    days: distinct, ascending days since 1970. counts: events on each. Counts by day can be added
    up over parts of the events, which an exact median cannot. None without events.
    """
    if len(days) == 0:
        return None
    index = np.searchsorted(np.cumsum(counts), counts.sum() / 2, side="left")
    return int(days[index]) * DAY_S


def rating_z_score(user: np.ndarray, rating: np.ndarray, *, n_users: int) -> np.ndarray:
    """Ratings float32 [E] in standard deviations from their user's mean.

    NaN where unrated; 0 for users who give one rating only.
    """
    mean, std = _mean_std(user, rating, n_users)
    spread = std[user]
    score = (rating - mean[user]) / np.where(spread > 0, spread, 1.0)
    return score.astype(np.float32)


def time_features(timestamp: np.ndarray) -> dict[str, np.ndarray]:
    """Hour (0-23), day of the week (Monday is 0) and month (1-12) of int64 [E], UTC, as int8."""
    day = timestamp // DAY_S
    month = day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12 + 1
    return {
        "hour": (timestamp % DAY_S // 3600).astype(np.int8),
        "day_of_week": ((day + 3) % 7).astype(np.int8),  # 1970-01-01 was a Thursday
        "month": month.astype(np.int8),
    }


def _mean_std(group: np.ndarray, value: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation of the known values of each group, float64."""
    known = ~np.isnan(value)
    group, value = group[known], value[known].astype(np.float64)
    return _moments(
        np.bincount(group, minlength=size),
        np.bincount(group, value, minlength=size),
        np.bincount(group, value**2, minlength=size),
    )


def _moments(
    n: np.ndarray, total: np.ndarray, squares: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    mean = _divide(total, n)
    return mean, np.sqrt(np.maximum(_divide(squares, n) - mean**2, 0.0))


def _range(group: np.ndarray, value: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest known value of each group, NaN for a group without any."""
    known = ~np.isnan(value)
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(low, group[known], value[known])
    np.maximum.at(high, group[known], value[known])
    return np.where(np.isinf(low), np.nan, low), np.where(np.isinf(high), np.nan, high)


def _divide(total: np.ndarray, n: np.ndarray) -> np.ndarray:
    """total / n, NaN where n is 0."""
    return np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)


def _column(value: np.ndarray) -> pa.Array:
    return pa.array(value.astype(np.float32), mask=np.isnan(value))
