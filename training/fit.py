"""Fits the two towers: one worker's model, optimiser and epochs. It knows nothing of Ray."""

import copy
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from training.baselines import Events
from training.evaluate import Known, rank_catalogue
from training.metrics import hit_matrix, user_metrics
from training.model.transformer import TransformerConfig, TransformerTower
from training.model.two_tower import ItemTower, TowerConfig, UserTower
from training.objective import Objective
from training.recipe import Recipe
from training.sequences import Batch, Sequences

CUTOFF = 10  # the epoch with the best validation NDCG at this cut-off is kept
CPU = torch.device("cpu")
_STATE_FILE = "learner.pt"


class BrokenState(Exception):
    """A learner's file that is missing, was cut off, or is none."""


@dataclass(frozen=True)
class TrainingData:
    """What a worker needs, and nothing of TEST.

    train: the events to learn from. validation: the events of VALIDATION that choose the epoch.
    item_features: float32 [I, F]. catalogue: bool [I], items that may be recommended.
    low: bool [events of train], those whose rating is under the recipe's `given_below`; None where
        its loss does not ask.
    user_features: float32 [U, C], standardised, 0 where unknown; None where the recipe does not
        ask.
    """

    train: Events
    validation: Events
    item_features: np.ndarray
    catalogue: np.ndarray
    low: np.ndarray | None = None
    user_features: np.ndarray | None = None


class TwoTower(nn.Module):
    """Both towers and their loss; input and output item vectors are the same."""

    def __init__(self, recipe: Recipe, data: TrainingData) -> None:
        super().__init__()
        events = np.bincount(data.train.item, minlength=data.train.n_items)
        known = torch.from_numpy(events > 0) if recipe.unseen_by_features else None
        self.objective = Objective(recipe, events)
        self._id_dropout = recipe.id_dropout
        self.item_tower = ItemTower(
            torch.from_numpy(data.item_features), recipe.id_dropout, known=known
        )
        self.user_tower = _user_tower(recipe, data)

    def forward(self, batch: Batch, sampled: Tensor | None) -> Tensor:
        """This worker's part of the mean loss of the global batch, a scalar.

        sampled: of the objective's `draw`, shared by all positions.
        """
        items = self.item_tower()
        predicted = batch.weights.any(dim=2)
        users = self.user_tower(
            functional.embedding(batch.history, items), predicted, self._known_users(batch.users)
        )
        given = batch.given[:, None].expand(-1, predicted.shape[1], -1)[predicted]
        loss = self.objective(
            users, items, batch.targets[predicted], batch.weights[predicted], sampled, given
        )
        return loss / batch.positions

    def _known_users(self, users: Tensor) -> Tensor | None:
        """The windows' user_idx, some of them as if unknown, so that new users are practised."""
        if not self.user_tower.config.users:
            return None
        dropped = torch.rand(len(users), device=users.device) < self._id_dropout
        return users.masked_fill(dropped, -1)

    def scoring_tower(self) -> UserTower:
        """The user tower in inference mode, holding the present item vectors."""
        self.eval()
        with torch.inference_mode():
            self.user_tower.item_vectors = self.item_tower()
        return self.user_tower


class Learner:
    """One of `workers` processes that train the same towers, in step; `rank` is its number.

    With more than one worker a torch process group must have been set up.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        *,
        seed: int,
        rank: int = 0,
        workers: int = 1,
        device: torch.device = CPU,
    ) -> None:
        """device: what the steps are computed on. Lists of items are ranked on the CPU."""
        self._recipe, self._data = recipe, data
        self._seed, self._rank, self._workers = seed, rank, workers
        self._device = device
        torch.manual_seed(seed)
        self._model = TwoTower(recipe, data)  # drawn on the CPU: the same whatever the device
        here = copy.deepcopy(self._model)
        self._model.to(device)
        self._average = copy.deepcopy(self._model) if device.type != "cpu" else here
        self._here = here  # the average where lists are ranked; on a CPU the very same
        self._steps = 0
        self._precision = torch.autocast(
            device.type, torch.bfloat16, enabled=multiplies_bfloat16(device)
        )
        self._step: nn.Module = self._model
        if workers > 1:
            self._step = DistributedDataParallel(self._model, broadcast_buffers=False)
        self._optimiser = torch.optim.AdamW(
            self._model.parameters(),
            lr=recipe.learning_rate,
            betas=(0.9, recipe.second_moment_decay),
            weight_decay=recipe.weight_decay,
        )
        offsets = np.searchsorted(data.train.user, np.arange(data.train.n_users + 1))
        self._sequences = Sequences(
            data.train.item,
            offsets,
            window=recipe.history_length,
            ahead=recipe.targets_ahead,
            decay=recipe.targets_decay,
            shuffled=recipe.shuffled,
            low=data.low,
            given=recipe.given_negatives,
        )

    def run_epoch(self, epoch: int) -> float:
        """One pass over the training events; returns the mean loss of a predicted event.

        Everything random is drawn from the seed, the epoch and the rank, so that a run which was
        interrupted between epochs ends where it would have ended.
        """
        self._step.train()
        torch.manual_seed(_mix(self._seed, epoch, self._rank))
        negatives = np.random.default_rng((self._seed, epoch))
        total, positions = 0.0, 0
        for batch in self._sequences.batches(
            batch_positions=self._recipe.batch_positions,
            seed=self._seed,
            epoch=epoch,
            rank=self._rank,
            workers=self._workers,
        ):
            drawn = self._model.objective.draw(negatives)
            sampled = None if drawn is None else drawn.to(self._device)
            with self._precision:
                loss = self._step(batch.to(self._device), sampled)
            self._optimiser.zero_grad()
            # Workers' gradients are averaged, and each holds a part of the sum.
            (loss * self._workers).backward()
            nn.utils.clip_grad_norm_(self._model.parameters(), self._recipe.gradient_norm)
            self._optimiser.step()
            self._update_average()
            total += loss.item() * batch.positions
            positions += batch.positions
        return self._sum_over_workers(total) / max(positions, 1)

    def validate(self) -> float:
        """Mean NDCG@10 over the validation users, all workers' together."""
        data, tower = self._data, self.tower()
        known = Known(data.train, data.catalogue)
        users = np.unique(data.validation.user)
        mine = users[self._rank :: self._workers]
        vectors = tower.item_vectors.numpy().T
        lists = rank_catalogue(
            lambda some: tower.encode_ragged(*known.histories(some), some) @ vectors,
            mine,
            known,
            CUTOFF,
        )
        relevant, offsets = data.validation.histories(mine)
        hits = hit_matrix(lists.items, relevant, offsets, data.train.n_items)
        ndcg = user_metrics(hits, np.diff(offsets), CUTOFF)["ndcg"]
        return self._sum_over_workers(float(ndcg.sum())) / len(users)

    def save(self, directory: Path, epochs: list[dict[str, Any]]) -> None:
        """Write all that `load` needs to go on; epochs: what was reported of each epoch so far."""
        state = {
            "model": self._model.state_dict(),
            "average": self._average.state_dict(),
            "steps": self._steps,
            "optimiser": self._optimiser.state_dict(),
            "epochs": epochs,
        }
        torch.save(state, directory / _STATE_FILE)

    def load(self, directory: Path) -> list[dict[str, Any]]:
        """Take up what `save` wrote; returns its `epochs`."""
        state = _read_state(directory)
        self._model.load_state_dict(state["model"])
        self._average.load_state_dict(state["average"])
        self._steps = state["steps"]
        self._optimiser.load_state_dict(state["optimiser"])
        epochs: list[dict[str, Any]] = state["epochs"]
        return epochs

    def tower(self) -> UserTower:
        """The averaged user tower with its item vectors, ready to `save` or to encode."""
        if self._here is not self._average:
            self._here.load_state_dict(self._average.state_dict())
        return self._here.scoring_tower()

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move the average towards the present weights, faster while there have been few steps."""
        self._steps += 1
        decay = min(self._recipe.average_decay, self._steps / (self._steps + 9))
        average, present = self._average.parameters(), self._model.parameters()
        torch._foreach_lerp_(list(average), list(present), 1 - decay)

    def _sum_over_workers(self, value: float) -> float:
        if self._workers == 1:
            return value
        total = torch.tensor([value], dtype=torch.float64, device=self._device)
        distributed.all_reduce(total)
        return float(total)


def epochs_saved(directory: Path) -> list[dict[str, Any]]:
    """The `epochs` of what `save` wrote; BrokenState when it is not whole."""
    epochs: list[dict[str, Any]] = _read_state(directory)["epochs"]
    return epochs


def _read_state(directory: Path) -> dict[str, Any]:
    """What `save` wrote, on the CPU."""
    try:
        state: dict[str, Any] = torch.load(
            directory / _STATE_FILE, weights_only=True, map_location=CPU
        )
    except (FileNotFoundError, EOFError, RuntimeError, UnpicklingError) as error:
        raise BrokenState(str(directory)) from error
    return state


def _user_tower(recipe: Recipe, data: TrainingData) -> UserTower:
    """The recipe's user tower, untrained; it holds the users' features, which training leaves."""
    features = data.user_features
    knows_users = recipe.user_ids or features is not None
    shape: dict[str, Any] = {
        "history_length": recipe.history_length,
        "half_lives": recipe.half_lives,
        "hidden": recipe.hidden,
        "dropout": recipe.dropout,
        "users": data.train.n_users if knows_users else 0,
        "user_ids": recipe.user_ids,
        "user_features": 0 if features is None else features.shape[1],
    }
    tower: UserTower
    if recipe.encoder == "transformer":
        blocks, heads = recipe.transformer_blocks, recipe.transformer_heads
        tower = TransformerTower(TransformerConfig(**shape, blocks=blocks, heads=heads))
    else:
        tower = UserTower(TowerConfig(**shape))
    if features is not None:
        tower.user_features[1:] = torch.from_numpy(features)
    return tower


def _mix(*numbers: int) -> int:
    """A seed that depends on all of `numbers`."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for it; without them it would be far slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
