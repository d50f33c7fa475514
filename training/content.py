"""What the item tower reads of the catalogue's further columns, whatever they are.

| Column                            | Becomes                                                     |
|-----------------------------------|-------------------------------------------------------------|
| numbers                           | standardised, with a flag for known                         |
| true or false                     | 1, -1, or 0 where unknown                                   |
| texts, lists of texts             | multi-hot of the values that several items share, length 1  |
| vectors (texts, images, a genome) | their first principal components, of mean length 1          |
"""

from collections import Counter

import numpy as np
import pyarrow as pa

from training.data.catalogue import is_vector
from training.data.features import ITEM_FEATURES

DESCRIBED = frozenset({"item_id", "title", "name", "genres", "year", *ITEM_FEATURES})
MOST_VALUES = 64  # of one column; the most frequent
LEAST_ITEMS = 2  # that share a value
COMPONENTS = 64  # of one vector
FARTHEST = 5.0  # standard deviations


def content_columns(items: pa.Table) -> list[str]:
    """The columns that a catalogue has beyond those that every catalogue has."""
    return [name for name in items.column_names if name not in DESCRIBED]


def without_vectors(items: pa.Table) -> pa.Table:
    """The catalogue as serving needs it: the item vectors hold what the vectors said."""
    return items.drop_columns([n for n in items.column_names if is_vector(items[n].type)])


def content_features(items: pa.Table) -> np.ndarray:
    """All further columns side by side, float64 [I, F]; F is 0 where there is none."""
    parts = [np.zeros((items.num_rows, 0))]
    for name in content_columns(items):
        column, kind = items[name], items[name].type
        if is_vector(kind):
            parts.append(_vector(column))
        elif pa.types.is_boolean(kind):
            signs = [
                0.0 if value is None else 1.0 if value else -1.0 for value in column.to_pylist()
            ]
            parts.append(np.array(signs)[:, None])
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            parts.append(_number(column))
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            parts.append(_multi_hot([() if v is None else (v,) for v in column.to_pylist()]))
        elif pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
            parts.append(_multi_hot([tuple(v or ()) for v in column.to_pylist()]))
    return np.concatenate(parts, axis=1)


def _number(column: pa.ChunkedArray) -> np.ndarray:
    value = column.cast(pa.float64()).to_numpy()
    known = np.isfinite(value)
    if not known.any():
        return np.zeros((len(value), 0))
    spread = value[known].std()
    score = np.zeros(len(value))
    if spread > 0:
        score[known] = (value[known] - value[known].mean()) / spread
    return np.stack([np.clip(score, -FARTHEST, FARTHEST), known.astype(float)], axis=1)


def _multi_hot(values: list[tuple[str, ...]]) -> np.ndarray:
    counts = Counter(value for row in values for value in set(row))
    shared = [pair for pair in counts.items() if pair[1] >= LEAST_ITEMS]
    shared.sort(key=lambda pair: (-pair[1], pair[0]))
    place = {value: index for index, (value, _) in enumerate(shared[:MOST_VALUES])}
    hot = np.zeros((len(values), len(place)))
    for index, row in enumerate(values):
        for value in row:
            if value in place:
                hot[index, place[value]] = 1.0
    return hot / np.sqrt(np.maximum(hot.sum(axis=1, keepdims=True), 1))


def _vector(column: pa.ChunkedArray) -> np.ndarray:
    """Principal components of the known vectors; an item without one is at their mean, 0."""
    known = column.is_valid().to_numpy()
    rows = np.array(column.drop_null().to_pylist(), dtype=np.float64)
    if rows.size == 0:
        return np.zeros((len(known), 0))
    centred = rows - rows.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    components = centred @ directions[:, ::-1][:, :COMPONENTS]
    length = np.linalg.norm(components, axis=1).mean()
    features = np.zeros((len(known), components.shape[1]))
    features[known] = components / length if length > 0 else 0.0
    return features
