"""Two deep rankers over the ranker's features: DCN-v2 and DeepFM.

Shape legend: N rows, F features, X = 2F inputs of a row, K quantiles.

A feature enters as where it lies among the training rows' quantiles, from -1 to 1, so that counts
and cosines are alike; one that is unknown enters as 0, and a second input says whether it is known.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.model.ranking import RANKER_FILES

Floats = NDArray[np.float32]

_QUANTILES = 33
_HIDDEN = 64
_CROSS_LAYERS = 2
_FACTORS = 8


class DeepRanker(nn.Module):
    """Scores rows; `kind` is one of DEEP (training/model/ranking.py)."""

    def __init__(self, kind: str, knots: Tensor) -> None:
        """knots: float32 [F, K], each feature's quantiles, ascending (see `quantiles`)."""
        super().__init__()
        self.kind = kind
        self.knots: Tensor
        self.register_buffer("knots", knots)
        inputs = 2 * len(knots)
        self.body = CrossNetwork(inputs) if kind == "dcn-v2" else FactorisationMachine(inputs)

    def forward(self, rows: Tensor) -> Tensor:
        """Scores float32 [N] of feature rows float32 [N, F]."""
        scores: Tensor = self.body(self._inputs(rows))
        return scores

    @torch.inference_mode()
    def predict(self, rows: Floats) -> Floats:
        """Scores float32 [N] of feature rows float32 [N, F], NaN where unknown."""
        scores: Floats = self(torch.from_numpy(np.ascontiguousarray(rows, np.float32))).numpy()
        return scores

    def save(self, directory: Path) -> None:
        """Write ranker.safetensors."""
        save_file(dict(self.state_dict()), directory / RANKER_FILES[self.kind])

    @classmethod
    def load(cls, file: Path, kind: str) -> "DeepRanker":
        """The ranker that `save` wrote; OSError, KeyError or RuntimeError when broken."""
        tensors = load_file(file)
        ranker = cls(kind, tensors["knots"])
        ranker.load_state_dict(tensors)
        return ranker.eval()

    def _inputs(self, rows: Tensor) -> Tensor:
        """[N, X] of [N, F]."""
        known = ~rows.isnan()
        columns = rows.nan_to_num().T.contiguous()
        last = self.knots.shape[1] - 1
        above = torch.searchsorted(self.knots, columns).clamp(1, last)
        low, high = self.knots.gather(1, above - 1), self.knots.gather(1, above)
        within = ((columns - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
        place = (2 * (above - 1 + within) / last - 1).T
        return torch.cat([place * known, known.to(place.dtype)], dim=1)


class CrossNetwork(nn.Module):
    """DCN-v2, crosses beside a deep part (Wang et al., DCN V2, 2021): x' = x0 * (W x + b) + x."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.crosses = nn.ModuleList(nn.Linear(inputs, inputs) for _ in range(_CROSS_LAYERS))
        self.deep = _deep(inputs)
        self.out = nn.Linear(inputs + _HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores [N] of [N, X]."""
        crossed = x
        for cross in self.crosses:
            crossed = x * cross(crossed) + crossed
        scores: Tensor = self.out(torch.cat([crossed, self.deep(x)], dim=1))
        return scores.squeeze(1)


class FactorisationMachine(nn.Module):
    """DeepFM (Guo et al., 2017): single features, pairs by factors, and a deep part.

    A feature is a number, not a category, so that its embedding is its value times its factors.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.single = nn.Linear(inputs, 1)
        self.factors = nn.Parameter(torch.randn(inputs, _FACTORS) * inputs**-0.5)
        self.deep = _deep(inputs * _FACTORS)
        self.out = nn.Linear(_HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores [N] of [N, X]."""
        embedded = x[:, :, None] * self.factors
        # Half of (square of the sum - sum of the squares) is the sum over pairs.
        pairs = (embedded.sum(1).square() - embedded.square().sum(1)).sum(1) / 2
        deep = self.out(self.deep(embedded.flatten(1)))
        scores: Tensor = pairs + (self.single(x) + deep).squeeze(1)
        return scores


def quantiles(rows: Floats) -> Floats:
    """Knots float32 [F, K] of feature rows [N, F], NaN left out; zeros where all are unknown."""
    shares = np.linspace(0, 1, _QUANTILES)
    knots = [np.quantile(column[~np.isnan(column)], shares) for column in _some(rows)]
    return np.array(knots, np.float32)


def _some(rows: Floats) -> Floats:
    """Columns [F, N] of rows, zero where a whole column is unknown."""
    columns = rows.T.copy()
    columns[np.isnan(columns).all(axis=1)] = 0
    return columns


def _deep(inputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU()
    )
