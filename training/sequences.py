"""Training sequences: every user's events cut into windows, dealt out to workers in batches.

What a batch holds depends on the seed and the epoch alone, never on the number of workers: each
worker takes its share of every global batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

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
    positions: predicted positions of the whole global batch, all workers' together; those whose
        events count for nothing, because they were rated low, among them.
    users: int64 [B] user_idx of each window.
    given: int64 [B, N] item_idx that the window's user rated low, -1 where there are fewer.
    """

    history: Tensor
    targets: Tensor
    weights: Tensor
    positions: int
    users: Tensor
    given: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The batch on that device."""
        names = ("history", "targets", "weights", "users", "given")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


class Sequences:
    """The events of a fold, in each user's order: item int32 [E], offsets int64 [U + 1]."""

    def __init__(
        self,
        item: np.ndarray,
        offsets: np.ndarray,
        *,
        window: int,
        ahead: int,
        decay: float = 0.0,
        shuffled: bool,
        low: np.ndarray | None = None,
        given: int = 0,
    ) -> None:
        """window: most positions predicted at once. ahead: P, targets of a position.
        decay: the k-th target counts k ** -decay as much as the first.

        shuffled: each epoch puts every user's events in another random order, so that a position
        predicts any other item of the user, not what comes next.
        low: bool [E], events rated low: they are no targets, and a window is given some of its
        user's, `given` at most. None: every event is a target.
        """
        self._item = item
        self._offsets = offsets
        self._window = window
        self._ahead = ahead
        self._share = np.arange(1, ahead + 1, dtype=np.float32) ** -decay
        self._shuffled = shuffled
        self._low = low
        self._given = given if low is not None else 0

    def batches(
        self, *, batch_positions: int, seed: int, epoch: int, rank: int = 0, workers: int = 1
    ) -> Iterator[Batch]:
        """The batches of one epoch for worker `rank` of `workers`, in a shuffled order.

        batch_positions: predicted positions of a global batch, about.
        """
        rng = np.random.default_rng((seed, epoch))
        events = self._shuffle(rng) if self._shuffled else np.arange(len(self._item))
        starts, lengths, ends = self._windows(rng)
        user = np.searchsorted(self._offsets, starts, side="right") - 1
        given = self._draw_given(rng, user)
        order = rng.permutation(len(starts))
        ticks = np.cumsum(lengths[order]) // batch_positions
        for batch in np.split(order, np.flatnonzero(np.diff(ticks)) + 1):
            by_length = batch[np.argsort(lengths[batch], kind="stable")]
            mine = by_length[rank::workers]
            positions = int(lengths[batch].sum())
            history, targets, weights = self._positions(
                events, starts[mine], lengths[mine], ends[mine]
            )
            yield Batch(
                history=torch.from_numpy(history),
                targets=torch.from_numpy(targets),
                weights=torch.from_numpy(weights),
                positions=positions,
                users=torch.from_numpy(user[mine]),
                given=torch.from_numpy(given[mine]),
            )

    def _shuffle(self, rng: np.random.Generator) -> np.ndarray:
        """The events with every user's in a random order, int64 [E]."""
        user = np.repeat(np.arange(len(self._offsets) - 1), np.diff(self._offsets))
        return np.lexsort((rng.random(len(user)), user))

    def _draw_given(self, rng: np.random.Generator, user: np.ndarray) -> np.ndarray:
        """Items rated low by the user of each window, int64 [windows, N], -1 behind the end."""
        given = np.full((len(user), self._given), -1, np.int64)
        if self._low is None:
            return given
        row = np.flatnonzero(self._low)
        first = np.searchsorted(row, self._offsets[user])
        count = np.searchsorted(row, self._offsets[user + 1]) - first
        some = count > 0
        # With replacement: a window of few such items sees one more than once, or not at all.
        place = (rng.random((some.sum(), self._given)) * count[some, None]).astype(np.int64)
        given[some] = self._item[row[first[some, None] + place]]
        given[np.arange(self._given) >= count[:, None]] = -1
        return given

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

    def _positions(
        self, events: np.ndarray, starts: np.ndarray, lengths: np.ndarray, ends: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """history, targets and weights of a Batch of these windows of `events`, in their order."""
        longest = int(lengths.max(initial=1))
        position = starts[:, None] + np.arange(longest)
        inside = np.arange(longest) < lengths[:, None]
        follow = position[:, :, None] + np.arange(1, self._ahead + 1)
        exists = inside[:, :, None] & (follow < ends[:, None, None])
        last = len(events) - 1
        following = events[np.minimum(follow, last)]
        if self._low is not None:
            exists &= ~self._low[following]
        weights = exists * self._share
        weights /= np.maximum(weights.sum(2, keepdims=True), self._share[-1])
        history = np.where(inside, self._item[events[np.minimum(position, last)]], 0)
        targets = np.where(exists, self._item[following], 0)
        return history.astype(np.int64), targets.astype(np.int64), weights.astype(np.float32)
