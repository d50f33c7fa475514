"""Who and what a model is good for: users by activity, items by popularity and newness.

Shape legend: U test users, I items, K the length of a list. A slice of users keeps their whole
lists; a slice of items keeps, as relevant, those of its items, and the users who have any.
"""

from dataclasses import dataclass

import numpy as np

from training.metrics import Interval, hit_matrix, mean_intervals, user_metrics

METRICS = ("ndcg", "recall", "recall_min", "hit")
_THIRDS = (1 / 3, 2 / 3)
_NEW_SHARE = 0.1


@dataclass(frozen=True)
class Slice:
    """`by` is activity, popularity or newness. users: bool [U] and items: bool [I] that are in."""

    by: str
    name: str
    users: np.ndarray
    items: np.ndarray


def make_slices(
    lengths: np.ndarray, events: np.ndarray, first_met: np.ndarray | None
) -> list[Slice]:
    """The slices that the data allows; those that would hold nobody are left out.

    lengths: known events of each test user, int [U]. events: known events of each item, int [I].
    first_met: when each item was first met, in events of all before it as a share of them all,
    float [I]; None without time.

    activity: thirds of the users by their events. popularity: the most popular items that hold a
    third of the events are the head, the next the middle, the others the tail. newness: an item is
    new when nine tenths of all events were over before anybody met it.
    """
    every_user, every_item = np.ones(len(lengths), bool), np.ones(len(events), bool)
    low, high = np.quantile(lengths, _THIRDS)
    order = np.argsort(-events, kind="stable")
    share = np.empty(len(events))
    before = np.cumsum(events[order]) - events[order]
    share[order] = before / max(events.sum(), 1)
    slices = [
        Slice("activity", "few events", lengths <= low, every_item),
        Slice("activity", "some events", (lengths > low) & (lengths <= high), every_item),
        Slice("activity", "many events", lengths > high, every_item),
        Slice("popularity", "head", every_user, share < _THIRDS[0]),
        Slice("popularity", "middle", every_user, (share >= _THIRDS[0]) & (share < _THIRDS[1])),
        Slice("popularity", "tail", every_user, share >= _THIRDS[1]),
    ]
    if first_met is not None:
        new = first_met >= 1 - _NEW_SHARE
        slices.append(Slice("newness", "new", every_user, new))
        slices.append(Slice("newness", "older", every_user, ~new))
    return [part for part in slices if part.users.any() and part.items.any()]


def measure(
    part: Slice,
    recommended: np.ndarray,
    relevant: np.ndarray,
    offsets: np.ndarray,
    *,
    cutoffs: tuple[int, ...],
    seed: int,
) -> tuple[int, dict[str, Interval]]:
    """The users that the slice measures, and METRICS at every cut-off, keyed `name@k`.

    recommended: item_idx int [U, K], -1 for an empty place. relevant, offsets: as in `hit_matrix`.
    """
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    kept = part.users[owner] & part.items[relevant]
    count = np.bincount(owner[kept], minlength=len(offsets) - 1)
    some = np.flatnonzero(count)
    ends = np.concatenate([[0], np.cumsum(count[some])])
    hits = hit_matrix(recommended[some], relevant[kept], ends, len(part.items))
    columns = {
        f"{name}@{k}": values
        for k in cutoffs
        for name, values in user_metrics(hits, count[some], k).items()
        if name in METRICS
    }
    return len(some), mean_intervals(columns, seed=seed) if len(some) else {}
