"""The answer for a user nobody knows, and for the day the tower or the index is gone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.domain import Float32s, Int32s, SearchFilter
from training.model.bundle import Bundle


class PopularStage:
    """One bundle version's items in order of recent popularity, under the index's own filters."""

    def __init__(self, bundle: Bundle) -> None:
        items = bundle.items
        self._order = bundle.popularity
        self._score = bundle.popularity_score
        self._genre_column = {name: g for g, name in enumerate(bundle.manifest.genres)}
        self._has_genre = bundle.genre_matrix > 0
        self._rating = items.avg_rating
        self._year = np.array([np.nan if y is None else y for y in items.years], np.float32)

    def search(self, wanted: SearchFilter, limit: int) -> tuple[Int32s, Float32s]:
        """At most `limit` item_idx with their popularity scores, most popular first."""
        found = self._order[self.allowed(wanted)[self._order]][:limit]
        return found, self._score[found]

    def allowed(self, wanted: SearchFilter) -> npt.NDArray[np.bool_]:
        """bool[I]: items that satisfy the conditions."""
        allowed = np.ones(len(self._order), bool)
        if wanted.genres:
            columns = [self._genre_column[g] for g in wanted.genres if g in self._genre_column]
            allowed &= self._has_genre[:, columns].any(axis=1)
        # NaN (unknown) compares false, as in the index: an unrated item fails a rating filter.
        if wanted.min_rating is not None:
            allowed &= self._rating >= wanted.min_rating
        if wanted.year_from is not None:
            allowed &= self._year >= wanted.year_from
        if wanted.year_to is not None:
            allowed &= self._year <= wanted.year_to
        allowed[wanted.exclude] = False
        return allowed
