"""The second stage: the bundle's ranker over the retrieved candidates."""

from __future__ import annotations

import numpy as np

from app.domain import Candidates, Float32s, Histories
from app.stages.user_features import ranker_inputs
from training.model.bundle import Bundle
from training.model.rankers import load_ranker
from training.model.ranking import CatalogueInputs, ranker_features


class RankerStage:
    """One bundle version's ranker."""

    def __init__(self, bundle: Bundle, *, depth: int) -> None:
        """depth: candidates scored per user, the first of them."""
        self._model = load_ranker(bundle.ranker_dir)
        self._catalogue = CatalogueInputs.build(
            bundle.item_vectors,
            bundle.item_features,
            bundle.genre_matrix,
            bundle.successors,
            bundle.successor_weights,
        )
        self._user_features = bundle.user_features
        self._depth = depth

    def rank(self, histories: Histories, candidates: Candidates) -> Float32s:
        """Scores float32[B,min(depth,K)] on the ranker's own scale; -inf for padding."""
        items = candidates.items[:, : self._depth]
        scores = candidates.scores[:, : self._depth]
        users = ranker_inputs(histories, self._user_features)
        features = ranker_features(
            self._catalogue, items, scores, histories.items, histories.offsets, users
        )
        present = (items >= 0).ravel()
        ranked = np.full(items.size, -np.inf, np.float32)
        if present.any():
            ranked[present] = self._model.predict(features[present])
        return ranked.reshape(items.shape)
