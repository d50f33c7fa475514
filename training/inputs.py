"""What the models read about items and users, as arrays, computed from the events passed in."""

import numpy as np
import pyarrow as pa

from training.data.features import genre_matrix

_YEAR_KNOT_SPACING = 10


def item_tower_features(items: pa.Table) -> np.ndarray:
    """The item tower's features, float32 [I, F]: genres, year, and a constant.

    Genres are a multi-hot scaled to length 1. The year is spread over the two nearest knots ten
    years apart, so that a linear layer can follow a curve; both are zero where unknown.
    """
    _, hot = genre_matrix(items["genres"].to_pylist())
    genres = hot / np.sqrt(np.maximum(hot.sum(axis=1, keepdims=True), 1))
    columns = [genres, _year_knots(years(items)), np.ones((len(hot), 1))]
    return np.concatenate(columns, axis=1).astype(np.float32)


def years(items: pa.Table) -> np.ndarray:
    """Release years float64 [I], NaN where unknown."""
    return items["year"].to_numpy(zero_copy_only=False).astype(np.float64)


def _year_knots(year: np.ndarray) -> np.ndarray:
    """Weights [I, knots] of the knots around each year; a row sums to 1, or 0 where unknown."""
    known = ~np.isnan(year)
    if not known.any():
        return np.zeros((len(year), 0))
    first = np.floor(year[known].min() / _YEAR_KNOT_SPACING)
    last = np.ceil(year[known].max() / _YEAR_KNOT_SPACING)
    knots = np.arange(first, last + 1)
    distance = np.abs(np.nan_to_num(year, nan=np.inf)[:, None] / _YEAR_KNOT_SPACING - knots)
    return np.maximum(1 - distance, 0)
