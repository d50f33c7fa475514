"""Several towers in one: their weighted scores, squeezed into a single dot product.

Shape legend: B users, I items, D = 128, S the widths of all parts together.

The sum of the parts' scores is itself a dot product, of their vectors put on end. It is brought
down to D - 1 coordinates by the linear map that keeps the scores of real users best, and a last
one for the items' biases (training/blend.py finds both). So an index holds one vector an item, and
a user is still the history alone.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.model.linear_tower import KIND as LINEAR
from training.model.linear_tower import LinearTower
from training.model.transformer import TransformerTower
from training.model.two_tower import UserTower

KIND = "blend"
_PARTS = "parts"


class Tower(Protocol):
    """Whatever makes user vectors of histories: one tower or several."""

    item_vectors: Tensor  # float32 [I, D]

    def encode_ragged(
        self,
        history: NDArray[np.int32],
        offsets: NDArray[np.int64],
        users: NDArray[np.integer[Any]] | None = None,
    ) -> NDArray[np.float32]:
        """See UserTower.encode_ragged."""

    def save(self, directory: Path) -> None:
        """Write what `load_tower` reads."""


Part = UserTower | LinearTower


class BlendedTower:
    """The parts' user vectors on end, times `mix` [S, D - 1]; the last coordinate is 1.

    The constant last coordinate of a part, if it has one, is not among the S.
    """

    def __init__(self, parts: Sequence[Part], mix: Tensor, item_vectors: Tensor) -> None:
        """mix: float32 [S, D - 1]. item_vectors: float32 [I, D], the last column biases."""
        self.parts = tuple(parts)
        self.mix = mix
        self.item_vectors = item_vectors

    def encode_ragged(
        self,
        history: NDArray[np.int32],
        offsets: NDArray[np.int64],
        users: NDArray[np.integer[Any]] | None = None,
    ) -> NDArray[np.float32]:
        """User vectors float32 [B, D]; arguments as UserTower.encode_ragged takes them."""
        vectors = part_vectors(self.parts, history, offsets, users) @ self.mix.numpy()
        return np.concatenate([vectors, np.ones((len(vectors), 1), np.float32)], axis=1)

    def save(self, directory: Path) -> None:
        """Writes the files that a UserTower writes, and each part into parts/<number>."""
        settings = {"encoder": KIND, "parts": len(self.parts)}
        (directory / "tower.json").write_text(json.dumps(settings, indent=2) + "\n")
        save_file({"mix": self.mix}, directory / "tower.safetensors")
        np.save(directory / "item_vectors.npy", self.item_vectors.numpy())
        for number, part in enumerate(self.parts):
            inner = directory / _PARTS / str(number)
            inner.mkdir(parents=True)
            part.save(inner)

    @classmethod
    def load(cls, directory: Path, parts: int) -> "BlendedTower":
        """The tower that `save` wrote; OSError or ValueError when broken."""
        mix = load_file(directory / "tower.safetensors")["mix"]
        items = torch.from_numpy(np.load(directory / "item_vectors.npy"))
        return cls([_load_part(directory / _PARTS / str(n)) for n in range(parts)], mix, items)


def part_vectors(
    parts: Sequence[Part],
    history: NDArray[np.int32],
    offsets: NDArray[np.int64],
    users: NDArray[np.integer[Any]] | None,
) -> NDArray[np.float32]:
    """The parts' user vectors on end, float32 [B, S], without constant coordinates."""
    vectors = [part.encode_ragged(history, offsets, users)[:, : width(part)] for part in parts]
    return np.concatenate(vectors, axis=1)


def width(part: Part) -> int:
    """The coordinates of a part's vectors that depend on the user."""
    whole = part.item_vectors.shape[1]
    return whole if isinstance(part, LinearTower) else whole - 1


def load_tower(directory: Path) -> Tower:
    """The tower that was saved there, of whichever kind; OSError or ValueError when broken."""
    settings = _settings(directory)
    if settings.get("encoder") == KIND:
        return BlendedTower.load(directory, settings["parts"])
    return _load_part(directory)


def _load_part(directory: Path) -> Part:
    kind = _settings(directory).get("encoder")
    if kind == LINEAR:
        return LinearTower.load(directory)
    return TransformerTower.load(directory) if kind == "transformer" else UserTower.load(directory)


def _settings(directory: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((directory / "tower.json").read_text())
    return settings
