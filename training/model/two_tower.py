"""The two towers: a user is a history, an item an id plus features, their score a dot product.

Shape legend: B users, L history length, T predicted positions, I items, F item features,
S pooled states, D = 128. Vectors are float32, item indices are dense in [0, I).
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
from torch.nn import functional

DIMENSION = 128


@dataclass(frozen=True)
class TowerConfig:
    """The shape of a user tower.

    history_length: events looked at, the most recent ones.
    half_lives: initial half-life of each decayed sum, in events; training moves them.
    hidden: width of the first layer.
    dropout: probability, in training only.
    users: users of whom it knows more than the history; 0 is none.
    user_ids: whether each of them has a learned vector.
    user_features: features known of each of them.
    """

    history_length: int = 200
    half_lives: tuple[float, ...] = (0.5, 2.0, 6.0, 20.0, 60.0)
    hidden: int = 256
    dropout: float = 0.2
    users: int = 0
    user_ids: bool = True  # as before there were features: bundles of then do not say so
    user_features: int = 0


class UserTower(nn.Module):
    """Turns the items a user met, oldest first, into a user vector; by default it knows no ids.

    The history is pooled into S states, each a sum of item vectors weighted by
    ``rate ** age / sqrt(sum of rate ** (2 * age))`` where age counts events since. The first
    state has rate 1, which is the 1/sqrt(n) bag; the other rates are learned. It knows neither
    ratings nor times: only the order. An empty history gives zero states, hence one fixed vector.

    The last coordinate of a user vector is 1, so that of an item vector is the item's bias.

    With `config.users` a learned vector of each known user is added, or a linear map of the user's
    features, or both. A user without them, who came after the training, is the history alone,
    which training also practises.
    """

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        half_lives = torch.tensor(config.half_lives, dtype=torch.float32)
        self.log_half_life = nn.Parameter(half_lives.log())
        self._add_layers((1 + len(config.half_lives)) * DIMENSION)

    def _add_layers(self, states: int) -> None:
        """What follows the pooled states, `states` numbers of a user."""
        config = self.config
        self.norm = nn.LayerNorm(states)
        # The history's order acts almost linearly; the layers learn what a linear map cannot.
        self.linear = nn.Linear(states, DIMENSION - 1, bias=False)
        nn.init.normal_(self.linear.weight, std=0.02)
        self.layers = nn.Sequential(
            nn.Linear(states, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, DIMENSION),
            nn.GELU(),
            nn.Linear(DIMENSION, DIMENSION - 1),
        )
        self.user_ids: nn.Embedding | None = None
        # In both tables row 0 stands for everybody without a row, and stays zero.
        if config.users and config.user_ids:
            self.user_ids = nn.Embedding(1 + config.users, DIMENSION - 1, padding_idx=0)
            nn.init.zeros_(self.user_ids.weight)
        self.project_user: nn.Linear | None = None
        if config.user_features:
            self.project_user = nn.Linear(config.user_features, DIMENSION - 1, bias=False)
            nn.init.zeros_(self.project_user.weight)
            table = torch.zeros(1 + config.users, config.user_features)
            self.register_buffer("user_features", table)
            self.user_features: Tensor
        self.register_buffer("item_vectors", torch.zeros(0, DIMENSION), persistent=False)
        self.item_vectors: Tensor

    def forward(self, history: Tensor, at: Tensor, users: Tensor | None = None) -> Tensor:
        """User vectors [T, D] after the T events marked by `at`, in the order of its rows.

        history: float [B, L, D] item vectors, oldest first; a short one is padded on the right.
        at: bool [B, L]. Causal: position t sees events 0..t.
        users: int64 [B] user_idx, -1 for nobody known; None is -1 for all.
        """
        batch, length, _ = history.shape
        weights = self._causal_weights(length)
        pooled = weights.flatten(0, 1) @ history
        states = pooled.view(batch, len(weights), length, DIMENSION).transpose(1, 2)
        return self._project(states[at].flatten(1), of_positions(users, at))

    @torch.inference_mode()
    def encode_ragged(
        self,
        history: NDArray[np.int32],
        offsets: NDArray[np.int64],
        users: NDArray[np.integer[Any]] | None = None,
    ) -> NDArray[np.float32]:
        """User vectors float32 [B, D] of B histories.

        history: int32 item indices of all users on end, oldest first; user b owns
        history[offsets[b]:offsets[b + 1]]. offsets: int64 [B + 1]. Needs `load`ed item vectors.
        users: user_idx [B], -1 for a user without one; None is -1 for all. Only a tower with
        `config.users` looks at them.
        """
        items, starts, ages, lengths = _recent(history, offsets, self.config.history_length)
        weights = self._weights(ages, lengths)
        pooled = [
            functional.embedding_bag(
                items, self.item_vectors, starts, mode="sum", per_sample_weights=weight
            )
            for weight in weights
        ]
        vectors: NDArray[np.float32] = self._project(
            torch.cat(pooled, dim=1), ids_tensor(users)
        ).numpy()
        return vectors

    def save(self, directory: Path) -> None:
        """Writes tower.json, tower.safetensors and item_vectors.npy (float32 [I, D])."""
        (directory / "tower.json").write_text(json.dumps(asdict(self.config), indent=2) + "\n")
        save_file(dict(self.state_dict()), directory / "tower.safetensors")
        np.save(directory / "item_vectors.npy", self.item_vectors.numpy())

    @classmethod
    def load(cls, directory: Path) -> "UserTower":
        """The tower that `save` wrote, in inference mode; OSError or ValueError when broken."""
        settings = json.loads((directory / "tower.json").read_text())
        settings["half_lives"] = tuple(settings["half_lives"])
        tower = cls(TowerConfig(**settings))
        tower.load_state_dict(load_file(directory / "tower.safetensors"))
        tower.item_vectors = torch.from_numpy(np.load(directory / "item_vectors.npy"))
        return tower.eval()

    def _causal_weights(self, length: int) -> Tensor:
        """Weights [S, L, L] of event u in the states after event t; zero where u > t."""
        position = torch.arange(length, device=self.log_half_life.device)
        age = position[:, None] - position[None, :]
        ages = age.clamp(min=0).flatten()
        lengths = (position + 1).repeat_interleave(length)
        return self._weights(ages, lengths).view(-1, length, length).tril()

    def _weights(self, ages: Tensor, lengths: Tensor) -> Tensor:
        """Weights [S, N] of N events with `ages` in histories of `lengths` events (int64 [N])."""
        log_rate = -torch.log(torch.tensor(2.0)) / self.log_half_life.exp()[:, None]
        # The squared weights are a geometric series: (1 - r^2n) / (1 - r^2).
        norm = torch.expm1(2 * log_rate * lengths) / torch.expm1(2 * log_rate)
        decayed = torch.exp(log_rate * ages) * norm.rsqrt()
        return torch.cat([lengths.to(decayed.dtype).rsqrt()[None], decayed])

    def _project(self, states: Tensor, users: Tensor | None) -> Tensor:
        """User vectors [N, D] of pooled states [N, S * D] and user_idx [N], -1 for nobody known."""
        states = self.norm(states)
        vectors: Tensor = self.layers(states) + self.linear(states)
        if self.user_ids is not None and users is not None:
            vectors = vectors + self.user_ids(users + 1)
        if self.project_user is not None and users is not None:
            vectors = vectors + self.project_user(self.user_features[users + 1])
        return torch.cat([vectors, vectors.new_ones(*vectors.shape[:-1], 1)], dim=-1)


class ItemTower(nn.Module):
    """Item vectors: an id embedding plus projected features.

    In training the id of one item in ten is dropped, so that the features learn to carry items
    that have no events yet.
    """

    def __init__(self, features: Tensor, id_dropout: float, known: Tensor | None = None) -> None:
        """features: float32 [I, F]; id_dropout: probability that a step sees no id of an item.

        known: bool [I], items that have an id at all; None is all of them.
        """
        super().__init__()
        self.id_dropout = id_dropout
        self.ids = nn.Embedding(len(features), DIMENSION)
        self.project = nn.Linear(features.shape[1], DIMENSION, bias=False)
        self.register_buffer("features", features, persistent=False)
        self.features: Tensor
        mask = None if known is None else known[:, None].float()
        self.register_buffer("known", mask, persistent=False)
        self.known: Tensor | None
        nn.init.normal_(self.ids.weight, std=DIMENSION**-0.5)
        nn.init.normal_(self.project.weight, std=0.02)

    def forward(self) -> Tensor:
        """Vectors [I, D] of the whole catalogue; the last coordinate is the item's bias."""
        ids = self.ids.weight
        if self.known is not None:
            ids = ids * self.known
        if self.training:
            kept = torch.rand(len(ids), 1, device=ids.device) >= self.id_dropout
            ids = ids * kept
        vectors: Tensor = ids + self.project(self.features)
        return vectors


def ids_tensor(users: NDArray[np.integer[Any]] | None) -> Tensor | None:
    """user_idx [B] as int64."""
    return None if users is None else torch.from_numpy(np.asarray(users, dtype=np.int64))


def of_positions(users: Tensor | None, at: Tensor) -> Tensor | None:
    """The user [T] of each position marked by `at` [B, L], of users [B]."""
    return None if users is None else users[:, None].expand_as(at)[at]


def _recent(
    history: NDArray[np.int32], offsets: NDArray[np.int64], limit: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The last `limit` events of each history: items, starts [B], and per event age and length."""
    lengths = np.minimum(np.diff(offsets), limit)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    ages = np.repeat(ends, lengths) - 1 - np.arange(ends[-1] if len(ends) else 0)
    items = history[np.repeat(offsets[1:], lengths) - 1 - ages]
    return (
        torch.from_numpy(items.astype(np.int64)),
        torch.from_numpy(starts),
        torch.from_numpy(ages),
        torch.from_numpy(np.repeat(lengths, lengths)),
    )
