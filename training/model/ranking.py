"""What the second-stage ranker sees of a (user, candidate) pair: the same code offline and online.

Shape legend: B users, K candidates each, I items, G genres, D vector dimension, N successors.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

ITEM_INPUTS = (
    "log_popularity",
    "recent_log_popularity",
    "popularity_trend",
    "year",
    "age_days",
    "rating_mean",
    "rating_std",
    "rating_trend",
)
USER_INPUTS = ("rating_mean", "rating_std", "velocity_per_month", "recency_days")
SIMILARITY_WINDOWS = (1, 5, 20)
SUCCESSORS = 64  # N, kept of each item
RANKER_FEATURES = (
    "tower_score",
    "tower_score_gap",
    "tower_rank",
    *(f"item_{name}" for name in ITEM_INPUTS),
    *(f"user_{name}" for name in USER_INPUTS),
    *(f"similarity_{kind}_{n}" for n in SIMILARITY_WINDOWS for kind in ("max", "mean")),
    "follows_last",
    "follows_recent",
    "genre_affinity",
    "recent_genre_affinity",
    "popularity_gap",
    "year_gap",
    "history_length",
)

# Kinds of ranker, and the file beside ranker.json that each is saved in.
TOWER_ORDER = "tower-order"  # a LightGBM model that keeps the tower's order
LAMBDAMART = "lambdamart"
XGBOOST = "xgboost"
DEEP = ("dcn-v2", "deepfm")
RANKER_FILES = {
    TOWER_ORDER: "ranker.txt",
    LAMBDAMART: "ranker.txt",
    XGBOOST: "ranker.ubj",
    **dict.fromkeys(DEEP, "ranker.safetensors"),
}

_TASTE_EVENTS = 200
_FOLLOWED_EVENTS = 5
_FOLLOWED_DECAY = 0.7  # per event of age
_FOLLOWED_AGES = (_FOLLOWED_DECAY ** np.arange(_FOLLOWED_EVENTS, dtype=np.float32))[:, None]
_LOG_POPULARITY = ITEM_INPUTS.index("log_popularity")
_YEAR = ITEM_INPUTS.index("year")


@dataclass(frozen=True)
class CatalogueInputs:
    """The ranker's view of the catalogue, one row per item_idx; NaN where unknown.

    unit_vectors: item vectors without the bias coordinate, scaled to length 1, [I, D - 1].
    item_features: columns are ITEM_INPUTS, [I, len(ITEM_INPUTS)].
    genre_matrix: row-normalised multi-hot, all zero without genres, [I, G].
    successors: item_idx int32 [I, N] that follow each item most; I where there are fewer.
    successor_weights: how strongly, float32 [I, N]; 0 where there are fewer.
    """

    unit_vectors: Floats
    item_features: Floats
    genre_matrix: Floats
    successors: NDArray[np.int32]
    successor_weights: Floats

    @classmethod
    def build(
        cls,
        item_vectors: Floats,
        item_features: Floats,
        genre_matrix: Floats,
        successors: NDArray[np.int32],
        successor_weights: Floats,
    ) -> "CatalogueInputs":
        """Checks the widths and normalises item_vectors [I, D], whose last coordinate is a bias."""
        if item_features.shape[1] != len(ITEM_INPUTS):
            raise ValueError(
                f"item features have {item_features.shape[1]} columns, "
                f"the ranker reads {len(ITEM_INPUTS)}: {', '.join(ITEM_INPUTS)}"
            )
        directions = item_vectors[:, :-1]
        norms = np.linalg.norm(directions, axis=1, keepdims=True)
        unit_vectors = directions / np.maximum(norms, 1e-9)
        return cls(
            unit_vectors.astype(np.float32),
            item_features,
            genre_matrix,
            successors,
            successor_weights,
        )


def ranker_kind(record: dict[str, Any]) -> str:
    """The kind that ranker.json names; releases that had only LightGBM named none.

    ValueError for a kind that this release does not know.
    """
    kind = record.get("kind", LAMBDAMART)
    if kind not in RANKER_FILES:
        raise ValueError(f"this release knows no ranker of kind {kind!r}")
    return str(kind)


def ranker_features(
    catalogue: CatalogueInputs,
    candidates: NDArray[np.int32],
    scores: Floats,
    history: NDArray[np.int32],
    offsets: NDArray[np.int64],
    user_features: Floats,
) -> Floats:
    """Feature rows float32 [B * K, len(RANKER_FEATURES)], user by user in candidate order.

    candidates: item_idx [B, K] in the tower's order; -1 marks an empty slot, whose row is NaN.
    scores: the tower's scores, [B, K].
    history: item_idx of all users on end, oldest first; user b owns
        history[offsets[b]:offsets[b + 1]]. offsets: int64 [B + 1].
    user_features: columns are USER_INPUTS, [B, len(USER_INPUTS)]; NaN rows for unknown users.
    """
    users, slots = candidates.shape
    features = np.empty((len(RANKER_FEATURES), users, slots), dtype=np.float32)
    columns = iter(features)

    def put(values: Floats) -> None:
        next(columns)[:] = values

    put(scores)
    put(scores - scores[:, :1])
    put(np.arange(slots, dtype=np.float32)[None, :])
    items = catalogue.item_features[candidates]
    for column in range(len(ITEM_INPUTS)):
        put(items[:, :, column])
    for column in range(len(USER_INPUTS)):
        put(user_features[:, column, None])
    for values in _similarities(catalogue.unit_vectors, candidates, history, offsets):
        put(values)
    for values in _follows(catalogue, candidates, history, offsets):
        put(values)

    genres = catalogue.genre_matrix[candidates]
    for window in (_TASTE_EVENTS, SIMILARITY_WINDOWS[-1]):
        taste = _window_mean(catalogue.genre_matrix, history, offsets, window)
        put((genres @ taste[:, :, None])[:, :, 0])
    known = catalogue.item_features[:, [_LOG_POPULARITY, _YEAR]]
    own_mean = _window_mean(known, history, offsets, _TASTE_EVENTS)
    put(items[:, :, _LOG_POPULARITY] - own_mean[:, :1])
    put(items[:, :, _YEAR] - own_mean[:, 1:])
    put(np.diff(offsets)[:, None].astype(np.float32))

    if candidates.min(initial=0) < 0:
        features[:, candidates < 0] = np.nan
    return np.ascontiguousarray(features.reshape(len(features), -1).T)


def _similarities(
    unit_vectors: Floats,
    candidates: NDArray[np.int32],
    history: NDArray[np.int32],
    offsets: NDArray[np.int64],
) -> list[Floats]:
    """Largest and mean cosine [B, K] to the last 1, 5, 20 events; NaN for an empty history."""
    lengths = np.diff(offsets)
    ages = np.arange(SIMILARITY_WINDOWS[-1])
    present = ages < lengths[:, None]
    positions = np.where(present, offsets[1:, None] - 1 - ages, 0)
    recent = history[positions] if len(history) else np.zeros(positions.shape, np.int32)
    # [B, 20, K]: candidates last, so that a window is reduced a whole row at a time.
    cosines = unit_vectors[recent] @ unit_vectors[candidates].transpose(0, 2, 1)
    cosines[~present] = -np.inf
    largest = [cosines[:, :window].max(axis=1) for window in SIMILARITY_WINDOWS]
    cosines[~present] = 0
    values: list[Floats] = []
    for window, maximum in zip(SIMILARITY_WINDOWS, largest, strict=True):
        count = np.maximum(np.minimum(lengths, window), 1).astype(np.float32)
        values += [maximum, cosines[:, :window].sum(axis=1) / count[:, None]]
    for value in values:
        value[lengths == 0] = np.nan
    return values


def _follows(
    catalogue: CatalogueInputs,
    candidates: NDArray[np.int32],
    history: NDArray[np.int32],
    offsets: NDArray[np.int64],
) -> list[Floats]:
    """How strongly each candidate follows the last event, and the last five by age, [B, K].

    NaN for an empty history. The tower knows order through 128 dimensions; this is the pairs
    themselves, which it rounds off.
    """
    last, recent = np.full((2, *candidates.shape), np.nan, dtype=np.float32)
    # One slot more than items, for the padding of successors (I) and of candidates (-1).
    strength = np.zeros(len(catalogue.successors) + 1, dtype=np.float32)
    for user, chosen in enumerate(candidates):
        newest = history[offsets[user] : offsets[user + 1]][: -_FOLLOWED_EVENTS - 1 : -1]
        if not len(newest):
            continue
        followers, weights = catalogue.successors[newest], catalogue.successor_weights[newest]
        strength[followers[0]] = weights[0]
        last[user] = strength[chosen]
        decayed = _FOLLOWED_AGES[1 : len(newest)] * weights[1:]
        np.add.at(strength, followers[1:].ravel(), decayed.ravel())
        recent[user] = strength[chosen]
        strength[followers] = 0
    return [last, recent]


def _window_mean(
    rows: Floats, history: NDArray[np.int32], offsets: NDArray[np.int64], window: int
) -> Floats:
    """Mean of the known rows [I, C] over each user's last `window` events, [B, C]; NaN if none."""
    lengths = np.minimum(np.diff(offsets), window)
    some = lengths > 0
    ends = np.cumsum(lengths)
    skipped = offsets[1:] - ends  # where a window lies in `history`, less where it is kept
    recent = history[np.arange(lengths.sum()) + np.repeat(skipped, lengths)]
    taken = rows[recent]
    known = ~np.isnan(taken)
    mean = np.full((len(lengths), rows.shape[1]), np.nan, dtype=np.float32)
    if some.any():
        starts = (ends - lengths)[some]
        total = np.add.reduceat(np.where(known, taken, 0), starts, axis=0)
        count = np.add.reduceat(known, starts, axis=0, dtype=np.float32)
        mean[some] = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return mean
