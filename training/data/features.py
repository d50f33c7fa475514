"""User, item and interaction features of events, vectorised.

Every function sees only the events that it is given, so features are point-in-time correct when
it is given the events before the cut-off. All features are made of sums that add up over parts of
the events: `prepare` adds those of its partitions, and `prepare --append` those of a new day.

E events, U users, I items, G genres. Unknown values are NaN in arrays and null in tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import pyarrow as pa

from training.model.user_features import DAY_S, UserTotals, moments
from training.model.user_features import recency as recency_days
from training.model.user_features import velocity as velocity_per_month

EPOCH_2000_S = 946_684_800  # times are summed from here in days, to lose no digits

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


@dataclass(frozen=True)
class UserSums:
    """What user features are made of, for U users. Every field but the last is [U]."""

    n_events: np.ndarray
    n_rated: np.ndarray
    rating_sum: np.ndarray
    rating_square_sum: np.ndarray
    rating_min: np.ndarray  # inf without ratings
    rating_max: np.ndarray  # -inf
    first_time: np.ndarray  # inf without times
    last_time: np.ndarray  # -inf
    genre_counts: np.ndarray  # int32 [U, G]

    @classmethod
    def of(
        cls,
        user: np.ndarray,
        item: np.ndarray,
        rating: np.ndarray,
        timestamp: np.ndarray | None,
        *,
        n_users: int,
        genres: np.ndarray,
    ) -> "UserSums":
        """user, item: int [E]. rating: float [E], NaN where unrated. timestamp: int64 [E], unix
        seconds, or None. genres: bool [I, G]."""
        rated = ~np.isnan(rating)
        who, known = user[rated], rating[rated].astype(np.float64)
        low, high = _range(who, known, n_users)
        first, last = _range(user[:0], known[:0], n_users)
        if timestamp is not None:
            first, last = _range(user, timestamp.astype(np.float64), n_users)
        return cls(
            n_events=np.bincount(user, minlength=n_users),
            n_rated=np.bincount(who, minlength=n_users),
            rating_sum=_total(who, known, n_users),
            rating_square_sum=_total(who, known**2, n_users),
            rating_min=low,
            rating_max=high,
            first_time=first,
            last_time=last,
            genre_counts=_genre_counts(user, item, n_users, genres),
        )

    @classmethod
    def empty(cls, n_users: int, n_genres: int) -> "UserSums":
        """The sums of no events."""

        def count() -> np.ndarray:
            return np.zeros(n_users, np.int64)

        def filled(value: float) -> np.ndarray:
            return np.full(n_users, value)

        return cls(
            n_events=count(),
            n_rated=count(),
            rating_sum=filled(0.0),
            rating_square_sum=filled(0.0),
            rating_min=filled(np.inf),
            rating_max=filled(-np.inf),
            first_time=filled(np.inf),
            last_time=filled(-np.inf),
            genre_counts=np.zeros((n_users, n_genres), np.int32),
        )

    def __add__(self, other: "UserSums") -> "UserSums":
        """The sums of both parts of the events, user by user."""
        joined = {
            "rating_min": np.minimum,
            "rating_max": np.maximum,
            "first_time": np.minimum,
            "last_time": np.maximum,
        }
        return UserSums(
            **{
                field.name: joined.get(field.name, np.add)(
                    getattr(self, field.name), getattr(other, field.name)
                )
                for field in fields(self)
            }
        )

    def totals(self) -> pa.Table:
        """What the online store makes USER_INPUTS of, a table of U rows: UserTotals' columns."""
        names = [field.name for field in fields(UserTotals)]
        return pa.table({name: getattr(self, name).astype(np.float64) for name in names})

    def take(self, users: np.ndarray) -> "UserSums":
        """The rows `users` int [N]."""
        return UserSums(**{field.name: getattr(self, field.name)[users] for field in fields(self)})

    @property
    def now(self) -> float | None:
        """The time of the last event of all; None without times."""
        latest = self.last_time.max(initial=-np.inf)
        return None if np.isinf(latest) else float(latest)

    def features(self, genre_names: Sequence[str], now: float | None) -> pa.Table:
        """USER_FEATURES, a table of U rows. now: the moment that recency is measured from."""
        mean, std = moments(self.n_rated, self.rating_sum, self.rating_square_sum)
        velocity = recency = np.full(len(self.n_events), np.nan)
        if now is not None:
            velocity = velocity_per_month(self.n_events, self.first_time, self.last_time)
            recency = recency_days(self.last_time, now)
        return pa.table(
            {
                "n_events": pa.array(self.n_events.astype(np.int32)),
                "rating_mean": _column(mean),
                "rating_std": _column(std),
                "rating_min": _column(_finite(self.rating_min)),
                "rating_max": _column(_finite(self.rating_max)),
                "top_genres": _top_genres(self.genre_counts, genre_names),
                "velocity_per_month": _column(velocity),
                "recency_days": _column(recency),
            }
        )


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

    Arguments as for UserSums; now: the moment that recency is measured from.
    """
    sums = UserSums.of(user, item, rating, timestamp, n_users=n_users, genres=genres)
    return sums.features(genre_names, None if timestamp is None else now)


@dataclass(frozen=True)
class ItemSums:
    """What item features are made of, as sums [I] that add up over parts of the events."""

    n_events: np.ndarray
    n_rated: np.ndarray
    rating_sum: np.ndarray
    rating_square_sum: np.ndarray
    day_sum: np.ndarray  # over rated events, days since 2000
    day_square_sum: np.ndarray
    rating_day_sum: np.ndarray

    @classmethod
    def of(
        cls, item: np.ndarray, rating: np.ndarray, timestamp: np.ndarray | None, *, n_items: int
    ) -> "ItemSums":
        """item: int [E]. rating: float [E], NaN where unrated. timestamp: int64 [E] or None."""
        rated = ~np.isnan(rating)
        what, known = (item, rating) if rated.all() else (item[rated], rating[rated])
        known = known.astype(np.float64)
        day = np.zeros(len(known))
        if timestamp is not None:
            day = (timestamp[rated] - EPOCH_2000_S) / DAY_S
        return cls(
            n_events=np.bincount(item, minlength=n_items),
            n_rated=np.bincount(what, minlength=n_items),
            rating_sum=_total(what, known, n_items),
            rating_square_sum=_total(what, known**2, n_items),
            day_sum=_total(what, day, n_items),
            day_square_sum=_total(what, day**2, n_items),
            rating_day_sum=_total(what, known * day, n_items),
        )

    @classmethod
    def empty(cls, n_items: int) -> Self:
        """The sums of no events."""
        return cls(*(np.zeros(n_items) for _ in fields(cls)))

    def __add__(self, other: "ItemSums") -> "ItemSums":
        return ItemSums(
            *(getattr(self, field.name) + getattr(other, field.name) for field in fields(self))
        )

    def features(self) -> pa.Table:
        """ITEM_FEATURES of every item, a table of I rows."""
        mean, std = moments(self.n_rated, self.rating_sum, self.rating_square_sum)
        return pa.table(
            {
                "n_events": pa.array(self.n_events.astype(np.int32)),
                "rating_mean": _column(mean),
                "rating_std": _column(std),
                "log_popularity": pa.array(np.log1p(self.n_events).astype(np.float32)),
                "rating_trend": pa.array(self.rating_trend().astype(np.float32)),
            }
        )

    def rating_trend(self) -> np.ndarray:
        """Stars by which an item's recent ratings lie above its old ones, float64 [I].

        On the least-squares line of its ratings over time, what lies between one standard
        deviation of time before the mean time and one after: 2 cov(day, rating) / std(day). For
        ratings at two moments, half at each, it is the difference of their means. 0 for an item
        whose ratings are all of one moment.
        """
        n = np.maximum(self.n_rated, 1)
        day = self.day_sum / n
        covariance = self.rating_day_sum / n - day * self.rating_sum / n
        spread = np.sqrt(np.maximum(self.day_square_sum / n - day**2, 0.0))
        apart = spread > 1 / DAY_S  # less than a second is rounding
        trend: np.ndarray = np.divide(2 * covariance, spread, out=np.zeros(len(n)), where=apart)
        return trend


def item_features(
    item: np.ndarray, rating: np.ndarray, timestamp: np.ndarray | None, *, n_items: int
) -> pa.Table:
    """ITEM_FEATURES of every item, a table of `n_items` rows. Arguments as for ItemSums."""
    return ItemSums.of(item, rating, timestamp, n_items=n_items).features()


def interaction_features(
    user: np.ndarray,
    rating: np.ndarray,
    timestamp: np.ndarray | None,
    rating_mean: np.ndarray,
    rating_std: np.ndarray,
) -> dict[str, np.ndarray]:
    """Columns [E] that describe each event: rating_z, hour, day_of_week and month.

    rating_mean, rating_std: float [U], what is known of each user before the cut-off
    (user_features.parquet), so that a held-out rating is measured by its user's past. Events
    without time have no hour, day and month.
    """
    columns = {"rating_z": z_score(user, rating, rating_mean, rating_std)}
    return columns if timestamp is None else columns | time_features(timestamp)


def z_score(user: np.ndarray, rating: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Ratings float32 [E] in standard deviations from their user's mean; mean, std: float [U].

    NaN where unrated or nothing is known of the user; 0 for users who give one rating only.
    """
    spread = std[user]
    varies = spread > 0
    score = np.where(varies, (rating - mean[user]) / np.where(varies, spread, 1.0), 0.0)
    unknown = np.isnan(rating) | np.isnan(mean[user])
    return np.where(unknown, np.nan, score).astype(np.float32)


def rating_z_score(user: np.ndarray, rating: np.ndarray, *, n_users: int) -> np.ndarray:
    """`z_score` by the mean and deviation of the same events."""
    known = ~np.isnan(rating)
    who, value = user[known], rating[known].astype(np.float64)
    mean, std = moments(
        np.bincount(who, minlength=n_users).astype(np.float64),
        _total(who, value, n_users),
        _total(who, value**2, n_users),
    )
    return z_score(user, rating, mean, std)


def time_features(timestamp: np.ndarray) -> dict[str, np.ndarray]:
    """Hour (0-23), day of the week (Monday is 0) and month (1-12) of int64 [E], UTC, as int8."""
    day = timestamp // DAY_S
    month = day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12 + 1
    return {
        "hour": (timestamp % DAY_S // 3600).astype(np.int8),
        "day_of_week": ((day + 3) % 7).astype(np.int8),  # 1970-01-01 was a Thursday
        "month": month.astype(np.int8),
    }


def _genre_counts(
    user: np.ndarray, item: np.ndarray, n_users: int, genres: np.ndarray
) -> np.ndarray:
    """How often each user met each genre, int32 [U, G]."""
    n_genres = genres.shape[1]
    owner, genre = np.nonzero(genres)
    per_item = np.bincount(owner, minlength=len(genres))
    start = np.cumsum(per_item) - per_item
    repeats = per_item[item]
    # Every event once for each genre of its item: positions in `genre`, item by item.
    ends = np.cumsum(repeats)
    position = np.arange(ends[-1] if len(ends) else 0)
    position += np.repeat(start[item] - (ends - repeats), repeats)
    key = np.repeat(user.astype(np.int64) * n_genres, repeats) + genre[position]
    counts = np.bincount(key, minlength=n_users * n_genres)
    return counts.reshape(n_users, n_genres).astype(np.int32)


def _top_genres(counts: np.ndarray, names: Sequence[str]) -> pa.Array:
    """Each user's most frequent genres, at most TOP_GENRES, as list<string> [U].

    Ties go to the genre that comes first in `names`.
    """
    best = np.argsort(-counts, axis=1, kind="stable")[:, :TOP_GENRES]
    present = np.take_along_axis(counts, best, axis=1) > 0
    offsets = np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int32)
    chosen = pa.array(names, pa.string()).take(pa.array(best[present]))
    return pa.ListArray.from_arrays(pa.array(offsets), chosen)


def _range(group: np.ndarray, value: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest value of each group: inf and -inf for a group without any."""
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(low, group, value)
    np.maximum.at(high, group, value)
    return low, high


def _total(group: np.ndarray, value: np.ndarray, size: int) -> np.ndarray:
    """The sum of each group, float64, which bincount of nothing is not."""
    return np.bincount(group, value, minlength=size).astype(np.float64, copy=False)


def _finite(value: np.ndarray) -> np.ndarray:
    return np.where(np.isinf(value), np.nan, value)


def _column(value: np.ndarray) -> pa.Array:
    return pa.array(value.astype(np.float32), mask=np.isnan(value))
