"""The recipe's loss: which items stand against each target, and how they are compared.

Shape legend: T predicted positions, P targets of a position, I items, N given negatives, D = 128.
"""

import numpy as np
import torch
from torch import Tensor, nn

from training.model.losses import bpr, full_softmax, mixed_contrastive, mse, sampled_softmax
from training.recipe import Recipe


class Objective(nn.Module):
    """A loss over item vectors [I, D], chosen by the recipe. It learns nothing."""

    def __init__(self, recipe: Recipe, events: np.ndarray) -> None:
        """events: how often each item was met in training, int [I]."""
        super().__init__()
        self._recipe = recipe
        known = np.flatnonzero(events) if recipe.unseen_by_features else np.arange(len(events))
        self._n_known = len(known)
        self._known: Tensor | None
        self._place: Tensor
        self._log_q: Tensor
        self._keep("_known", None)
        if len(known) < len(events):
            self._keep("_known", known)
            events = events[known]
            place = np.zeros(known.max(initial=0) + 1, np.int64)
            place[known] = np.arange(len(known))
            self._keep("_place", place)
        power = recipe.sampling_power if recipe.loss == "sampled-softmax" else 1.0
        weight = events.astype(np.float64) ** power
        share = weight / max(weight.sum(), 1.0)
        self._cumulative = np.cumsum(share)
        with np.errstate(divide="ignore"):  # an item without events is never drawn
            self._keep("_log_q", np.log(share).astype(np.float32))

    def draw(self, rng: np.random.Generator) -> Tensor | None:
        """A step's samples, int64 [M] of the items that the loss sees; None where it needs none."""
        recipe = self._recipe
        if recipe.loss in ("in-batch", "mixed"):
            return None
        if recipe.loss == "softmax" and self._n_known <= recipe.full_softmax_items:
            return None
        if recipe.loss == "sampled-softmax":
            drawn = np.searchsorted(self._cumulative, rng.random(recipe.sampled_items))
            return torch.from_numpy(np.minimum(drawn, self._n_known - 1))
        return torch.from_numpy(rng.integers(0, self._n_known, recipe.sampled_items))

    def forward(
        self,
        users: Tensor,
        items: Tensor,
        targets: Tensor,
        weights: Tensor,
        sampled: Tensor | None,
        given: Tensor,
    ) -> Tensor:
        """The loss summed over positions, a scalar.

        users: [T, D]. items: [I, D]. targets, weights: [T, P] as in `full_softmax`. sampled: of
        `draw`. given: int64 [T, N], what each position's user rated low, -1 where there are fewer.
        """
        recipe = self._recipe
        if self._known is not None:
            items, targets = items[self._known], self._place[targets]
            given = torch.where(given < 0, given, self._place[given.clamp(min=0)])
        if recipe.loss in ("in-batch", "mixed"):
            batch = targets[weights > 0]
            users = users / recipe.temperature
            if recipe.loss == "in-batch":
                return sampled_softmax(users, items, targets, weights, batch, self._log_q)
            return mixed_contrastive(users, items, targets, weights, batch, self._log_q, given)
        if sampled is None:
            return full_softmax(users, items, targets, weights)
        if recipe.loss == "softmax":
            return sampled_softmax(users, items, targets, weights, sampled)
        if recipe.loss == "sampled-softmax":
            return sampled_softmax(users, items, targets, weights, sampled, self._log_q)
        share = {"mse": 1.0, "bpr": 0.0}.get(recipe.loss, recipe.mse_share)
        loss = users.new_zeros((), dtype=torch.float32)
        if share > 0:
            loss = loss + share * mse(users, items, targets, weights, sampled)
        if share < 1:
            loss = loss + (1 - share) * bpr(users, items, targets, weights, sampled)
        return loss

    def _keep(self, name: str, values: np.ndarray | None) -> None:
        """An attribute that goes to the device with the model and into no checkpoint."""
        tensor = None if values is None else torch.from_numpy(values)
        self.register_buffer(name, tensor, persistent=False)
