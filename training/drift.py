"""The drift baseline: what was normal when the bundle was made.

Every distribution is `shares`, summing to 1 over the bins that `edges` cut (a value on an edge
falls into the bin above it), so that the online side can count into the same bins and compare.
"""

from typing import Any

import numpy as np

HISTORY_EDGES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # events of a user
POPULARITY_EDGES = (0.01, 0.05, 0.2, 0.5)  # position in the popularity order, as part of it
SCORE_BINS = 10


def baseline(
    user_offsets: np.ndarray,
    history: np.ndarray,
    popularity: np.ndarray,
    genre_matrix: np.ndarray,
    genres: list[str],
    scores: np.ndarray,
) -> dict[str, Any]:
    """The content of drift.json.

    history int32 [E] with user_offsets int64 [U+1]: all events, by user. popularity int32 [I]:
    item_idx, most popular first. genre_matrix float32 [I, G], rows sum to 1 or 0. scores: the
    tower's scores of what it would retrieve, any shape.
    """
    n_items = len(popularity)
    position = np.empty(n_items)
    position[popularity] = np.arange(n_items) / max(n_items, 1)
    counts = np.bincount(history, minlength=n_items)
    genre_events = counts @ genre_matrix
    edges = np.quantile(scores, np.linspace(0, 1, SCORE_BINS + 1)[1:-1])
    return {
        "history_length": _distribution(np.diff(user_offsets), HISTORY_EDGES),
        "popularity": _distribution(position[history], POPULARITY_EDGES),
        "genres": dict(zip(genres, _shares(genre_events), strict=True)),
        "score": _distribution(scores.ravel(), edges),
    }


def _distribution(values: np.ndarray, edges: Any) -> dict[str, list[float]]:
    bins = np.searchsorted(edges, values, side="right")
    counts = np.bincount(bins, minlength=len(edges) + 1)
    return {"edges": [float(edge) for edge in edges], "shares": _shares(counts)}


def _shares(counts: np.ndarray) -> list[float]:
    return [round(float(share), 6) for share in counts / max(counts.sum(), 1e-12)]
