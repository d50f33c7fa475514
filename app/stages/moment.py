"""The ranker's scores, moved a little by the last five minutes.

    score + spread * (trend_weight * heat + session_weight * affinity)

spread is the standard deviation of the user's ranked candidates' scores, heat how fast the item
gathers events just now (0..1, app/live.py), affinity how much of its genres the user met in the
last five minutes (0..1). So weights are in standard deviations of the slate itself, whatever the
ranker's scale. What the ranker did not score stays where it is, behind. The model is trained on
events that have no such window: this is a rule, not a feature.
"""

from __future__ import annotations

import numpy as np

from app.domain import Candidates, Float32s, Histories


def adjusted(
    scores: Float32s,
    candidates: Candidates,
    histories: Histories,
    heat: Float32s | None,
    genre_matrix: Float32s,
    *,
    trend_weight: float,
    session_weight: float,
) -> Float32s:
    """Scores float32[B,D]; -inf stays -inf.

    scores: float32[B,D] of the first D candidates of each row. heat: float32[I], None when nothing
    moves. genre_matrix: float32[I,G], rows sum to 1 or 0.
    """
    recent = [] if histories.recent is None else histories.recent.tolist()
    in_session = [b for b, count in enumerate(recent) if count and session_weight]
    if (heat is None or not trend_weight) and not in_session:
        return scores
    items = candidates.items[:, : scores.shape[1]]
    present = items >= 0
    moved = np.zeros_like(scores)
    if heat is not None and trend_weight:
        moved += trend_weight * heat[items]
    for b in in_session:
        newest = histories.of(b)[-recent[b] :]
        taste = genre_matrix[newest].mean(axis=0)
        moved[b] += session_weight * (genre_matrix[items[b]] @ taste)
    return np.where(present, scores + _spread(scores, present) * moved, scores)


def _spread(scores: Float32s, present: np.ndarray) -> Float32s:
    """Standard deviation of the present scores of each row, float32[B,1]."""
    count = np.maximum(present.sum(axis=1, keepdims=True), 1)
    finite = np.where(present, scores, 0)
    mean = finite.sum(axis=1, keepdims=True) / count
    deviation = np.where(present, finite - mean, 0)
    spread: Float32s = np.sqrt((deviation**2).sum(axis=1, keepdims=True) / count)
    return spread.astype(np.float32)
