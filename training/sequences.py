"""Training sequences: every user's events cut into windows, dealt out to workers in batches.

What a batch holds depends on the seed and the epoch alone, never on the number of workers: each
worker takes its share of every global batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One worker's share of a global batch of B windows, L positions each, P targets a position.

    history: int64 [B, L] item_idx, oldest first; 0 behind the end, which no position sees.
    targets: int64 [B, L, P] the item_idx that follow each position.
    weights: float32 [B, L, P] the share of each target, 0 behind the end. A position's weights
        sum to 1.
    positions: predicted positions of the whole global batch, all workers' together.
    """

    history: Tensor
    targets: Tensor
    weights: Tensor
    positions: int


class Sequences:
    """The events of a fold, in each user's order: item int32 [E], offsets int64 [U + 1]."""

    def __init__(
        self, item: np.ndarray, offsets: np.ndarray, *, window: int, ahead: int, shuffled: bool
    ) -> None:
        """window: most positions predicted at once. ahead: P, targets of a position.

        shuffled: each epoch puts every user's events in another random order, so that a position
        predicts any other item of the user, not what comes next.
        """
        self._item = item
        self._offsets = offsets
        self._window = window
        self._ahead = ahead
        self._shuffled = shuffled

    def batches(
        self, *, batch_positions: int, seed: int, epoch: int, rank: int = 0, workers: int = 1
    ) -> Iterator[Batch]:
        """The batches of one epoch for worker `rank` of `workers`, in a shuffled order.

        batch_positions: predicted positions of a global batch, about.
        """
        rng = np.random.default_rng((seed, epoch))
        item = self._shuffle(rng) if self._shuffled else self._item
        starts, lengths, ends = self._windows(rng)
        order = rng.permutation(len(starts))
        ticks = np.cumsum(lengths[order]) // batch_positions
        for batch in np.split(order, np.flatnonzero(np.diff(ticks)) + 1):
            by_length = batch[np.argsort(lengths[batch], kind="stable")]
            mine = by_length[rank::workers]
            positions = int(lengths[batch].sum())
            yield self._batch(item, starts[mine], lengths[mine], ends[mine], positions)

    def _shuffle(self, rng: np.random.Generator) -> np.ndarray:
        """The items with every user's in a random order, int32 [E]."""
        user = np.repeat(np.arange(len(self._offsets) - 1), np.diff(self._offsets))
        shuffled: np.ndarray = self._item[np.lexsort((rng.random(len(user)), user))]
        return shuffled

    def _windows(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Start and length of every window, in events, and the end of its user's events.

        A long sequence is cut at a random phase, so that no event is always seen with a short
        history.
        """
        first, end = self._offsets[:-1], self._offsets[1:]
        predicted = np.maximum(end - first - 1, 0)
        long = predicted > self._window
        phase = np.where(long, rng.integers(0, self._window, len(first)), 0)
        count = -(-(predicted + phase) // self._window)
        user = np.repeat(np.arange(len(first)), count)
        nth = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
        start = np.maximum(nth * self._window - phase[user], 0)
        stop = np.minimum((nth + 1) * self._window - phase[user], predicted[user])
        return first[user] + start, stop - start, end[user]

    def _batch(
        self,
        item: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
        ends: np.ndarray,
        positions: int,
    ) -> Batch:
        longest = int(lengths.max(initial=1))
        position = starts[:, None] + np.arange(longest)
        inside = np.arange(longest) < lengths[:, None]
        follow = position[:, :, None] + np.arange(1, self._ahead + 1)
        exists = inside[:, :, None] & (follow < ends[:, None, None])
        weights = exists / np.maximum(exists.sum(2, keepdims=True), 1)
        last = len(item) - 1
        return Batch(
            history=torch.from_numpy(
                np.where(inside, item[np.minimum(position, last)], 0).astype(np.int64)
            ),
            targets=torch.from_numpy(
                np.where(exists, item[np.minimum(follow, last)], 0).astype(np.int64)
            ),
            weights=torch.from_numpy(weights.astype(np.float32)),
            positions=positions,
        )
