"""What the models read about items and users, as arrays.

Whatever depends on events is computed from the chosen ones only, so it knows nothing that came
after them. U users, I items, E events, G genres; unknown values are NaN.
"""

import numpy as np
import pyarrow as pa
from scipy import sparse

from training.baselines import recency_weights
from training.content import content_features
from training.data.dataset import Dataset
from training.data.features import genre_matrix, item_features, user_features
from training.model.ranking import ITEM_INPUTS, SUCCESSORS, USER_INPUTS, CatalogueInputs
from training.model.user_features import DAY_S

_YEAR_KNOT_SPACING = 10
_SUCCESSOR_DISTANCE = 5  # events
_SUCCESSOR_SHRINKAGE = 5  # events added to every item's count, so that rare pairs weigh less
_MOST_DEVIATIONS = 5.0


def item_tower_features(items: pa.Table) -> np.ndarray:
    """The item tower's features, float32 [I, F]: genres, year, further columns, and a constant.

    Genres are a multi-hot scaled to length 1. The year is spread over the two nearest knots ten
    years apart, so that a linear layer can follow a curve; both are zero where unknown. What
    further columns of the catalogue become is said in training/content.py.
    """
    _, hot = genre_matrix(items["genres"].to_pylist())
    genres = hot / np.sqrt(np.maximum(hot.sum(axis=1, keepdims=True), 1))
    columns = [genres, _year_knots(years(items)), content_features(items), np.ones((len(hot), 1))]
    return np.concatenate(columns, axis=1).astype(np.float32)


def genre_shares(items: pa.Table) -> tuple[list[str], np.ndarray]:
    """Genre names [G] and each item's shares float32 [I, G]; a row sums to 1, or 0 without any."""
    names, hot = genre_matrix(items["genres"].to_pylist())
    shares = hot / np.maximum(hot.sum(axis=1, keepdims=True), 1)
    return names, shares.astype(np.float32)


def catalogue_inputs(
    dataset: Dataset, item_vectors: np.ndarray, chosen: np.ndarray
) -> CatalogueInputs:
    """The ranker's view of the catalogue, from the chosen events (bool [E])."""
    return CatalogueInputs.build(
        item_vectors,
        ranker_item_inputs(dataset, chosen),
        genre_shares(dataset.items)[1],
        *successors(dataset, chosen),
    )


def successors(dataset: Dataset, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The items that follow each item most among the chosen events, and how strongly.

    chosen: bool [E]. Returns item_idx int32 [I, SUCCESSORS] by falling weight, I where there are
    fewer, and the weights float32. Each time j comes d <= 5 events after i in a user's order adds
    1 / d; the sum is divided by sqrt((n_i + 5) * (n_j + 5)), a shrunk cosine.
    """
    user, item, size = dataset.user[chosen], dataset.item[chosen], dataset.n_items
    pairs = sparse.csr_matrix((size, size), dtype=np.float32)
    for distance in range(1, _SUCCESSOR_DISTANCE + 1):
        same = user[distance:] == user[:-distance]
        ends = item[:-distance][same], item[distance:][same]
        share = np.full(len(ends[0]), 1 / distance, np.float32)
        pairs = pairs + sparse.csr_matrix((share, ends), shape=pairs.shape)
    scale = 1 / np.sqrt(np.bincount(item, minlength=size) + _SUCCESSOR_SHRINKAGE)
    weight = pairs.tocoo()
    value = (weight.data * scale[weight.row] * scale[weight.col]).astype(np.float32)
    order = np.lexsort((weight.col, -value, weight.row))
    row, column, value = weight.row[order], weight.col[order], value[order]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    kept = place < SUCCESSORS
    ids = np.full((size, SUCCESSORS), size, np.int32)
    weights = np.zeros((size, SUCCESSORS), np.float32)
    ids[row[kept], place[kept]] = column[kept]
    weights[row[kept], place[kept]] = value[kept]
    return ids, weights


def ranker_item_inputs(dataset: Dataset, chosen: np.ndarray) -> np.ndarray:
    """ITEM_INPUTS of every item, float32 [I, len(ITEM_INPUTS)], from the chosen events.

    chosen: bool [E]. The present is the time of the last chosen event.
    """
    item, rating = dataset.item[chosen], dataset.rating[chosen]
    timestamp = dataset.timestamp[chosen] if dataset.has_time else None
    table = item_features(item, rating, timestamp, n_items=dataset.n_items)
    columns = {name: _floats(table[name]) for name in table.column_names}
    columns["year"] = years(dataset.items)
    columns["recent_log_popularity"] = columns["age_days"] = np.full(dataset.n_items, np.nan)
    if timestamp is not None:
        recent = np.bincount(item, recency_weights(timestamp), minlength=dataset.n_items)
        columns["recent_log_popularity"] = np.log1p(recent)
        columns["age_days"] = _age_days(item, timestamp, dataset.n_items)
    columns["popularity_trend"] = columns["recent_log_popularity"] - columns["log_popularity"]
    return np.stack([columns[name] for name in ITEM_INPUTS], axis=1).astype(np.float32)


def ranker_user_inputs(dataset: Dataset, chosen: np.ndarray) -> np.ndarray:
    """USER_INPUTS of every user, float32 [U, len(USER_INPUTS)], from the chosen events.

    chosen: bool [E]. A user without chosen events is a row of NaN.
    """
    names, hot = genre_matrix(dataset.items["genres"].to_pylist())
    timestamp = dataset.timestamp[chosen] if dataset.has_time else None
    table = user_features(
        dataset.user[chosen],
        dataset.item[chosen],
        dataset.rating[chosen],
        timestamp,
        n_users=dataset.n_users,
        genre_names=names,
        genres=hot,
        now=None if timestamp is None else int(timestamp.max()),
    )
    inputs = np.stack([_floats(table[name]) for name in USER_INPUTS], axis=1).astype(np.float32)
    inputs[_floats(table["n_events"]) == 0] = np.nan
    return inputs


def user_tower_features(dataset: Dataset, chosen: np.ndarray) -> np.ndarray:
    """USER_INPUTS of every user in deviations from the mean, float32 [U, len(USER_INPUTS)].

    chosen: bool [E], which they are made of. What is unknown is 0, the mean. Nobody is further
    from it than 5 deviations: a layer is linear in them, and one machine's account among people
    would be out of all measure.
    """
    inputs = np.ma.masked_invalid(ranker_user_inputs(dataset, chosen).astype(np.float64))
    deviation = np.ma.maximum(inputs.std(axis=0), 1e-6)  # less is rounding: all are the same
    score = (inputs - inputs.mean(axis=0)) / deviation
    return score.clip(-_MOST_DEVIATIONS, _MOST_DEVIATIONS).filled(0).astype(np.float32)


def years(items: pa.Table) -> np.ndarray:
    """Release years float64 [I], NaN where unknown."""
    return _floats(items["year"])


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    """A numeric column as float64, null as NaN."""
    return column.cast(pa.float64()).to_numpy()


def _age_days(item: np.ndarray, timestamp: np.ndarray, n_items: int) -> np.ndarray:
    """Days from each item's first event to the last event of all, NaN without events."""
    first = np.full(n_items, np.inf)
    np.minimum.at(first, item, timestamp)
    age = (timestamp.max() - first) / DAY_S
    return np.where(np.isinf(first), np.nan, age)


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
