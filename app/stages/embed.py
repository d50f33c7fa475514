"""The user tower on a batch of histories."""

from __future__ import annotations

from app.domain import Float32s, Histories
from training.model.bundle import Bundle
from training.model.two_tower import UserTower


class TowerStage:
    """One bundle version's user tower."""

    def __init__(self, bundle: Bundle) -> None:
        self._tower = UserTower.load(bundle.tower_dir)

    def embed(self, histories: Histories) -> Float32s:
        """User vectors float32[B,D]."""
        return self._tower.encode_ragged(histories.items, histories.offsets)
