"""Which items the same users have: the neighbours of every item, by co-consumption.

Item-based collaborative filtering (Sarwar et al., "Item-based collaborative filtering
recommendation algorithms", WWW 2001): the cosine of two items' columns in the matrix of who has
what. It is shrunk towards 0 where few users speak for it (Bell & Koren, "Scalable collaborative
filtering with jointly derived neighborhood interpolation weights", ICDM 2007).
"""

from itertools import pairwise

import numpy as np
from scipy import sparse

from training.model.bundle import NEIGHBOURS

_RECENT_EVENTS = 200  # of a user; pairs grow by the square, and the longest histories say least
_SHRINKAGE = 20  # users added to every item's count
_PAIRS_AT_ONCE = 2**24  # about 0.2 GB


def neighbours(
    history: np.ndarray, offsets: np.ndarray, n_items: int
) -> tuple[np.ndarray, np.ndarray]:
    """The items that share most users with each item, and how strongly.

    history: item_idx [E] by user, oldest first; offsets: [U + 1]. Returns item_idx
    int32 [I, NEIGHBOURS] by falling weight, ties by rising item_idx, I where there are fewer, and
    the weights float32, at most 1: c_ij / sqrt((n_i + 20) * (n_j + 20)), where n_i users have i
    and c_ij both, by the last 200 events of each.
    """
    has = _who_has_what(history, offsets, n_items)
    by_item = has.T.tocsr()
    scale = 1 / np.sqrt(np.diff(by_item.indptr) + _SHRINKAGE)
    ids = np.full((n_items, NEIGHBOURS), n_items, np.int32)
    weights = np.zeros((n_items, NEIGHBOURS), np.float32)
    step = max(1, _PAIRS_AT_ONCE // max(n_items, 1))
    for first in range(0, n_items, step):
        shared = by_item[first : first + step] @ has
        for item, (start, end) in enumerate(pairwise(shared.indptr), first):
            other, count = shared.indices[start:end], shared.data[start:end]
            weight = (count * (scale[other] * scale[item])).astype(np.float32)
            weight[other == item] = 0
            best = _strongest(other, weight)
            ids[item, : len(best)] = other[best]
            weights[item, : len(best)] = weight[best]
    return ids, weights


def _who_has_what(history: np.ndarray, offsets: np.ndarray, n_items: int) -> sparse.csr_matrix:
    """int32 [U, I]: 1 where an item is among the user's last events."""
    lengths = np.diff(offsets)
    kept = np.ones(len(history), bool)
    for user in np.flatnonzero(lengths > _RECENT_EVENTS):
        kept[offsets[user] : offsets[user + 1] - _RECENT_EVENTS] = False
    items = history[kept]
    ends = np.concatenate([[0], np.cumsum(np.minimum(lengths, _RECENT_EVENTS))])
    ones = np.ones(len(items), np.int32)
    has = sparse.csr_matrix((ones, items, ends), shape=(len(lengths), n_items))
    has.sum_duplicates()
    has.data[:] = 1
    return has


def _strongest(other: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Places of the NEIGHBOURS largest weights above 0, falling, ties by rising `other`."""
    least = np.partition(weight, -NEIGHBOURS)[-NEIGHBOURS] if len(weight) > NEIGHBOURS else 0
    places = np.flatnonzero((weight >= least) & (weight > 0))  # all that tie for the last place
    order = np.lexsort((other[places], -weight[places]))
    return places[order[:NEIGHBOURS]]
