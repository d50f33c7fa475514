"""What a prepared data set looks like, as figures that plots and reports are made of.

E events, U users, I items, G genres. Everything is over all events of the data set.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from training.data.dataset import Dataset
from training.data.features import genre_matrix, time_features
from training.data.splits import TEST_SHARE
from training.model.user_features import DAY_S

DENSITY_CELLS = 40
COLD_BOUNDS = (1, 5, 10, 20, 50)
MOST_GENRES = 20
ALL_ALIKE_LEAST = 20  # ratings of a user, before giving the same one each time is remarkable


@dataclass(frozen=True)
class Exploration:
    """Everything a report shows, computed when it is asked for."""

    data: Dataset

    @cached_property
    def events_per_user(self) -> np.ndarray:
        """int64 [U]"""
        return np.diff(self.data.offsets)

    @cached_property
    def events_per_item(self) -> np.ndarray:
        """int64 [I], 0 for items of the catalogue that nobody met."""
        return np.bincount(self.data.item, minlength=self.data.n_items)

    @cached_property
    def rating_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """The distinct ratings and how often each was given; empty without ratings."""
        known = self.data.rating[~np.isnan(self.data.rating)]
        values, counts = np.unique(known, return_counts=True)
        if len(values) <= MOST_GENRES:
            return values, counts
        counts, edges = np.histogram(known, bins=MOST_GENRES)
        return (edges[1:] + edges[:-1]) / 2, counts

    @cached_property
    def genres(self) -> tuple[list[str], np.ndarray]:
        """Names and multi-hot bool [I, G] of the genres that most items have, those first."""
        names, hot = genre_matrix(self.data.items["genres"].to_pylist())
        order = np.argsort(-hot.sum(axis=0), kind="stable")[:MOST_GENRES]
        return [names[index] for index in order], hot[:, order]

    @cached_property
    def genre_items(self) -> np.ndarray:
        """Items of each genre, int64 [G]."""
        per_genre: np.ndarray = self.genres[1].sum(axis=0)
        return per_genre

    @cached_property
    def genre_events(self) -> np.ndarray:
        """Events of each genre, int64 [G]."""
        per_genre: np.ndarray = self.events_per_item @ self.genres[1]
        return per_genre

    @cached_property
    def genre_pairs(self) -> np.ndarray:
        """The share of the items of a row's genre that have the column's, float64 [G, G]."""
        hot = self.genres[1].astype(np.float64)
        share: np.ndarray = (hot.T @ hot) / np.maximum(hot.sum(axis=0), 1)[:, None]
        return share

    @cached_property
    def genre_rating(self) -> np.ndarray:
        """Mean rating of each genre's events, float64 [G], NaN without ratings."""
        rated = ~np.isnan(self.data.rating)
        item, rating = self.data.item[rated], self.data.rating[rated].astype(np.float64)
        total = np.bincount(item, rating, minlength=self.data.n_items) @ self.genres[1]
        count = np.bincount(item, minlength=self.data.n_items) @ self.genres[1]
        mean: np.ndarray = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
        return mean

    @cached_property
    def months(self) -> tuple[np.ndarray, np.ndarray]:
        """Months since 1970 as datetime64[M], without gaps, and the events of each."""
        month = (self.data.timestamp // DAY_S).astype("datetime64[D]").astype("datetime64[M]")
        first = month.min()
        counts = np.bincount((month - first).astype(np.int64))
        return first + np.arange(len(counts)), counts

    @cached_property
    def weekday_hour(self) -> np.ndarray:
        """Events by day of the week (Monday first) and hour, int64 [7, 24], UTC."""
        parts = time_features(self.data.timestamp)
        slot = parts["day_of_week"].astype(np.int64) * 24 + parts["hour"]
        return np.bincount(slot, minlength=7 * 24).reshape(7, 24)

    @cached_property
    def density(self) -> np.ndarray:
        """Share of the (user, item) pairs that met, float64 [cells, cells].

        Rows are equal parts of the users, the most active first; columns are equal parts of the
        items, the most popular first.
        """
        user, item = _rank(self.events_per_user), _rank(self.events_per_item)
        n_rows, n_columns = min(DENSITY_CELLS, len(user)), min(DENSITY_CELLS, len(item))
        row = user * n_rows // len(user)
        column = item * n_columns // len(item)
        cell = row[self.data.user] * n_columns + column[self.data.item]
        met = np.bincount(cell, minlength=n_rows * n_columns).reshape(n_rows, n_columns)
        return met / np.outer(np.bincount(row), np.bincount(column))

    @cached_property
    def cold(self) -> list[tuple[str, int, int]]:
        """How many users and items have fewer events than each bound: (text, users, items)."""
        return [
            (
                "no event" if bound == 1 else f"fewer than {bound} events",
                int((self.events_per_user < bound).sum()),
                int((self.events_per_item < bound).sum()),
            )
            for bound in COLD_BOUNDS
        ]

    @cached_property
    def cold_held_out(self) -> int:
        """Held-out events (the last fifth of each user's) of items with none before."""
        rank = np.arange(self.data.n_events) - self.data.offsets[self.data.user]
        count = self.events_per_user[self.data.user]
        held_out = rank >= count - count // TEST_SHARE
        known = np.bincount(self.data.item[~held_out], minlength=self.data.n_items) > 0
        return int((~known[self.data.item[held_out]]).sum())

    def concentration(self, share: float) -> float:
        """The share of all events that the most popular `share` of the items has."""
        ordered = np.sort(self.events_per_item)[::-1]
        return float(ordered[: max(round(len(ordered) * share), 1)].sum() / ordered.sum())

    @cached_property
    def findings(self) -> list[tuple[str, int, str]]:
        """What is remarkable about the data's quality: (what, how many, of what)."""
        checks: list[Callable[[], tuple[str, int, str]]] = [
            self._repeats,
            self._undescribed,
            self._without_genres,
            self._without_events,
        ]
        if self.data.has_ratings:
            checks.append(self._all_alike)
        if self.data.has_time:
            checks.append(self._same_second)
        rejected = [
            (f"rejected: {reason}", count, "events")
            for reason, count in self.data.statistics.get("rejected", {}).items()
        ]
        return rejected + [check() for check in checks]

    def _repeats(self) -> tuple[str, int, str]:
        pair = self.data.user.astype(np.int64) * self.data.n_items + self.data.item
        return "repeat a (user, item) pair", len(pair) - len(np.unique(pair)), "events"

    def _undescribed(self) -> tuple[str, int, str]:
        count = self.data.statistics.get("items_without_description", 0)
        return "have no description", count, "items"

    def _without_genres(self) -> tuple[str, int, str]:
        count = sum(not genres for genres in self.data.items["genres"].to_pylist())
        return "have no categories", count, "items"

    def _without_events(self) -> tuple[str, int, str]:
        return "have no event", int((self.events_per_item == 0).sum()), "items"

    def _all_alike(self) -> tuple[str, int, str]:
        deviation = self.data.users["rating_std"].to_numpy()
        alike = (deviation == 0) & (self.events_per_user >= ALL_ALIKE_LEAST)
        return f"gave {ALL_ALIKE_LEAST} or more ratings, all alike", int(alike.sum()), "users"

    def _same_second(self) -> tuple[str, int, str]:
        same = (np.diff(self.data.timestamp) == 0) & (np.diff(self.data.user) == 0)
        text = "come in the same second as the user's event before: their order is the file's"
        return text, int(same.sum()), "events"


def rank_curve(counts: np.ndarray, points: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Ranks from 1 and the counts there, at most `points` of them evenly spaced in log(rank).

    Counts of 0 are left out: a logarithm has no place for them.
    """
    ordered = np.sort(counts[counts > 0])[::-1]
    rank = np.unique(np.geomspace(1, max(len(ordered), 1), points).astype(np.int64))
    return rank, ordered[rank - 1]


def _rank(counts: np.ndarray) -> np.ndarray:
    """The place of each in falling order, int64, ties by index."""
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return rank
