"""A user tower that only adds up: each item of the history brings a fixed vector.

Shape legend: B users, I items, R the rank of the vectors. It is fitted in closed form
(training/linear.py) and served as one part of a blend (training/model/blend.py).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

KIND = "linear"


class LinearTower:
    """User vectors are sums of `input_vectors` [I, R] over the whole history, in any order.

    A user's score of item i is the sum times row i of `item_vectors` [I, R]; there is no bias.
    """

    def __init__(self, input_vectors: Tensor, item_vectors: Tensor) -> None:
        """Both float32 [I, R]."""
        self.input_vectors = input_vectors
        self.item_vectors = item_vectors

    @torch.inference_mode()
    def encode_ragged(
        self,
        history: NDArray[np.int32],
        offsets: NDArray[np.int64],
        users: NDArray[np.integer[Any]] | None = None,
    ) -> NDArray[np.float32]:
        """User vectors float32 [B, R]; arguments as UserTower.encode_ragged takes them.

        Zero for an empty history. `users` is not looked at.
        """
        items = torch.from_numpy(history.astype(np.int64))
        starts = torch.from_numpy(np.ascontiguousarray(offsets[:-1]))
        vectors: NDArray[np.float32] = functional.embedding_bag(
            items, self.input_vectors, starts, mode="sum"
        ).numpy()
        return vectors

    def save(self, directory: Path) -> None:
        """Writes the files that a UserTower writes; tower.json says that it is linear."""
        (directory / "tower.json").write_text(json.dumps({"encoder": KIND}, indent=2) + "\n")
        save_file({"input_vectors": self.input_vectors}, directory / "tower.safetensors")
        np.save(directory / "item_vectors.npy", self.item_vectors.numpy())

    @classmethod
    def load(cls, directory: Path) -> "LinearTower":
        """The tower that `save` wrote; OSError or ValueError when broken."""
        tensors = load_file(directory / "tower.safetensors")
        items = torch.from_numpy(np.load(directory / "item_vectors.npy"))
        return cls(tensors["input_vectors"], items)
