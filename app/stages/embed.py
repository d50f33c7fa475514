"""The user tower on a batch of histories."""

from __future__ import annotations

from app.domain import Float32s, Histories
from training.model.blend import load_tower
from training.model.bundle import Bundle, BundleError


class TowerStage:
    """One bundle version's user tower."""

    def __init__(self, bundle: Bundle) -> None:
        """Load the tower. Raises BundleError when its weights are of another release."""
        try:
            self._tower = load_tower(bundle.tower_dir)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise BundleError(
                f"{bundle.tower_dir}: this release cannot load the user tower ({reason}); "
                "train and publish again with this release"
            ) from error

    def embed(self, histories: Histories) -> Float32s:
        """User vectors float32[B,D]."""
        return self._tower.encode_ragged(histories.items, histories.offsets, histories.users)
