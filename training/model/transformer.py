"""A user tower whose history encoder is a small causal transformer.

Shape legend: B users, L history length, H heads, D = 128, T predicted positions. The same
interface and files as the tower of decayed sums in two_tower.py; blend.py's `load_tower` opens
either.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.model.two_tower import DIMENSION, TowerConfig, UserTower, ids_tensor, of_positions

_AT_ONCE = 64  # histories encoded together: their attention stays in the cache
_LONGEST_HALF_LIFE = 100.0  # events, of the head that forgets most slowly at the start


@dataclass(frozen=True)
class TransformerConfig(TowerConfig):
    """The shape of a transformer tower; `half_lives` is not read.

    blocks: attention and feed-forward layers. heads: of each attention.
    """

    blocks: int = 2
    heads: int = 4


class TransformerTower(UserTower):
    """The last state of a causal transformer over the history, beside the 1/sqrt(n) bag.

    Attention knows order through a bias that falls linearly with the events between two
    positions, each head at a rate that is learned (Press, Smith, Lewis, Train Short, Test Long,
    2022, where the rates are fixed). So a history has no first position, and a window that starts
    in its middle looks like any other. An empty history gives zero states.
    """

    config: TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            _Block(config.heads, config.dropout) for _ in range(config.blocks)
        )
        self.last_norm = nn.LayerNorm(DIMENSION)
        self._add_layers(2 * DIMENSION)

    def forward(self, history: Tensor, at: Tensor, users: Tensor | None = None) -> Tensor:
        """See UserTower.forward."""
        length = history.shape[1]
        position = torch.arange(length, device=history.device)
        state = self.dropout(history)
        for block in self.blocks:
            state = block(state, position)
        bag = history.cumsum(1) / (position + 1).sqrt()[:, None]
        states = torch.cat([bag[at], self.last_norm(state[at])], dim=1)
        return self._project(states, of_positions(users, at))

    @torch.inference_mode()
    def encode_ragged(
        self,
        history: NDArray[np.int32],
        offsets: NDArray[np.int64],
        users: NDArray[np.integer[Any]] | None = None,
    ) -> NDArray[np.float32]:
        """See UserTower.encode_ragged."""
        lengths = np.minimum(np.diff(offsets), self.config.history_length)
        states = torch.zeros(len(lengths), 2 * DIMENSION)
        # Histories of about one length go together, so that little is padded.
        order = np.argsort(lengths, kind="stable")
        order = order[lengths[order] > 0]
        for start in range(0, len(order), _AT_ONCE):
            rows = order[start : start + _AT_ONCE]
            states[torch.from_numpy(rows)] = self._last_states(history, offsets, rows, lengths)
        vectors: NDArray[np.float32] = self._project(states, ids_tensor(users)).numpy()
        return vectors

    def save(self, directory: Path) -> None:
        """Writes the same files as UserTower.save; tower.json says that it is a transformer."""
        settings = {"encoder": "transformer", **asdict(self.config)}
        (directory / "tower.json").write_text(json.dumps(settings, indent=2) + "\n")
        save_file(dict(self.state_dict()), directory / "tower.safetensors")
        np.save(directory / "item_vectors.npy", self.item_vectors.numpy())

    @classmethod
    def load(cls, directory: Path) -> "TransformerTower":
        """The tower that `save` wrote, in inference mode; OSError or ValueError when broken."""
        settings = json.loads((directory / "tower.json").read_text())
        settings.pop("encoder")
        settings["half_lives"] = tuple(settings["half_lives"])
        tower = cls(TransformerConfig(**settings))
        tower.load_state_dict(load_file(directory / "tower.safetensors"))
        tower.item_vectors = torch.from_numpy(np.load(directory / "item_vectors.npy"))
        return tower.eval()

    def _last_states(
        self,
        history: NDArray[np.int32],
        offsets: NDArray[np.int64],
        rows: NDArray[np.int64],
        lengths: NDArray[np.int64],
    ) -> Tensor:
        """Pooled states [b, 2 * D] of the histories `rows`, each of at least one event."""
        length = lengths[rows]
        position = np.arange(length.max())
        inside = position < length[:, None]
        first = offsets[rows + 1] - length
        items = history[np.where(inside, first[:, None] + position, first[:, None])]
        vectors = self.item_vectors[torch.from_numpy(items.astype(np.int64))]
        size = torch.from_numpy(length)
        state, places = vectors, torch.arange(len(position))
        for block in self.blocks[:-1]:
            state = block(state, places)
        state = self.blocks[-1](state, places, last=size - 1)[:, 0]
        bag = (vectors * torch.from_numpy(inside)[:, :, None]).sum(1) / size.sqrt()[:, None]
        return torch.cat([bag, self.last_norm(state)], dim=1)


class _Block(nn.Module):
    """Attention over earlier events, then a feed-forward layer, each added to its input."""

    def __init__(self, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        half_lives = torch.logspace(0, float(np.log10(_LONGEST_HALF_LIFE)), heads)
        self.log_half_life = nn.Parameter(half_lives.log())
        self.norm = nn.LayerNorm(DIMENSION)
        self.query = nn.Linear(DIMENSION, DIMENSION)
        self.key_value = nn.Linear(DIMENSION, 2 * DIMENSION)
        self.out = nn.Linear(DIMENSION, DIMENSION)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(DIMENSION),
            nn.Linear(DIMENSION, 2 * DIMENSION),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * DIMENSION, DIMENSION),
            nn.Dropout(dropout),
        )

    def forward(self, state: Tensor, position: Tensor, last: Tensor | None = None) -> Tensor:
        """New states [B, L, D] of states [B, L, D] at positions [L].

        last: int64 [B]; only the state at this position of each row is computed, [B, 1, D].
        """
        normed = self.norm(state)
        key, value = self._split(self.key_value(normed)).chunk(2, dim=3)
        if last is None:
            asked, at = normed, position.expand(1, -1)
        else:
            rows = torch.arange(len(state))
            state, asked, at = state[rows, last, None], normed[rows, last, None], last[:, None]
        query = self._split(self.query(asked))
        scores = query @ key.transpose(2, 3) * (DIMENSION // self.heads) ** -0.5
        scores = scores + self._bias(at[:, None, :, None] - position)
        mixed = (self.dropout(scores.softmax(3)).to(value.dtype) @ value).transpose(1, 2).flatten(2)
        state = state + self.dropout(self.out(mixed))
        output: Tensor = state + self.feed_forward(state)
        return output

    def _split(self, vectors: Tensor) -> Tensor:
        """[B, L, C] as [B, H, L, C / H]."""
        batch, length, width = vectors.shape
        return vectors.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

    def _bias(self, age: Tensor) -> Tensor:
        """Added to the scores, [b, H, t, L], of ages [b, 1, t, L]; -inf for what comes later."""
        rate = float(np.log(2)) / self.log_half_life.exp()[:, None, None]
        return (-rate * age).masked_fill(age < 0, -torch.inf)
