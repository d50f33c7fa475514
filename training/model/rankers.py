"""Second-stage models as evaluating and serving open them: whichever kind the run trained.

ranker.json says which: `kind`, `file` and the features it reads. Each model scores float32 rows
[N, F], NaN where unknown, on one thread: a replica has one CPU. Packages are imported where a
model needs them, because a replica that ranks with trees has no use for torch.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import lightgbm
import numpy as np
from numpy.typing import NDArray

from training.model.ranking import DEEP, LAMBDAMART, RANKER_FILES, XGBOOST, ranker_kind

if TYPE_CHECKING:
    import xgboost

Floats = NDArray[np.float32]


class RankingModel(Protocol):
    """Scores feature rows; a higher score is a better candidate of the same user."""

    def predict(self, rows: Floats) -> Floats:
        """Scores [N] of rows [N, F]."""

    def save(self, directory: Path) -> None:
        """Write the file of its kind, see RANKER_FILES."""


class LightGBMRanker:
    """LightGBM's text model."""

    def __init__(self, booster: lightgbm.Booster) -> None:
        self.booster = booster

    def predict(self, rows: Floats) -> Floats:
        """Scores float32 [N] of rows [N, F]."""
        return np.asarray(self.booster.predict(rows, num_threads=1), np.float32)

    def save(self, directory: Path) -> None:
        """Write ranker.txt."""
        self.booster.save_model(directory / RANKER_FILES[LAMBDAMART])


class XGBoostRanker:
    """XGBoost's binary JSON model."""

    def __init__(self, booster: "xgboost.Booster") -> None:
        booster.set_param({"nthread": 1})
        self.booster = booster

    def predict(self, rows: Floats) -> Floats:
        """Scores float32 [N] of rows [N, F]."""
        scores: Floats = self.booster.inplace_predict(rows)
        return scores

    def save(self, directory: Path) -> None:
        """Write ranker.ubj."""
        self.booster.save_model(directory / RANKER_FILES[XGBOOST])


def load_ranker(directory: Path) -> RankingModel:
    """The ranker saved there, of whichever kind; OSError or ValueError when broken."""
    kind = ranker_kind(json.loads((directory / "ranker.json").read_bytes()))
    file = directory / RANKER_FILES[kind]
    if kind in DEEP:
        from training.model.deep_ranker import DeepRanker

        return DeepRanker.load(file, kind)
    if kind == XGBOOST:
        import xgboost

        booster = xgboost.Booster()
        booster.load_model(file)
        return XGBoostRanker(booster)
    return LightGBMRanker(lightgbm.Booster(model_file=file))
