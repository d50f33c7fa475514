"""A linear tower in closed form: EASE, weighted for users and items, cut down to a low rank.

EASE (Steck, Embarrassingly Shallow Autoencoders for Sparse Data, 2019) predicts every item of a
user from all the others by one ridge regression. Here a user with n events counts n ** -0.7 as
much, an item with m events is scaled by m ** -0.25, and besides the constant ridge each item has
one of a share of its own weight (which is dropout of the input, in expectation). Where events have
a time, a second regression counts two events of a user exp(-d / 20) as much when they are d places
apart, and half of its map is added: what was watched at the same time says more. The best
rank-R map for these users' scores (a projection on their leading eigenvectors, reduced-rank
regression) loses nothing at 127 on MovieLens 1M. The constants were chosen there, on a split of the
events before TEST.
"""

import numpy as np
import torch
from scipy.linalg import inv
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import eigsh

from training.baselines import Events
from training.model.linear_tower import LinearTower

RIDGE = 500.0  # of events, as in EASE, before the weights
_NEAR_RIDGE = 200.0
_NEAR_SHARE = 0.5
_NEAR = 20.0  # places, at which the weight has fallen to 1 / e
_FAR = 60  # places; farther apart than this is not near at all
_OWN_RIDGE = 0.3
_USER_POWER = 0.7
_ITEM_POWER = 0.25
_MOST_ITEMS = 10_000  # the others have zero vectors; a matrix of 10,000 x 10,000 is 400 MB
_USERS_AT_ONCE = 1024


def fit_linear(events: Events, rank: int) -> LinearTower:
    """The linear tower of these events; vectors of `rank` coordinates, or fewer with few items.

    Only the 10,000 items with the most events take part.
    """
    counts = np.bincount(events.item, minlength=events.n_items)
    chosen = np.argsort(-counts, kind="stable")[: min(_MOST_ITEMS, int((counts > 0).sum()))]
    chosen = np.sort(chosen)
    scale = counts[chosen].astype(np.float32) ** -_ITEM_POWER
    gram = _gram(events, chosen)
    weights = _solve(gram, scale, RIDGE / counts[chosen].sum())
    if events.timestamp is not None:
        near = _near_gram(events, chosen)
        weights += _NEAR_SHARE * _solve(near, scale, _NEAR_RIDGE / counts[chosen].sum())
    # Scores of all users are X B; their second moments, weighted as the users are, B' G B.
    moments = weights.T @ gram @ weights
    rank = min(rank, len(chosen) - 1)
    start = np.ones(len(chosen), np.float32)  # fixed, so that the same data gives the same tower
    _, directions = eigsh(moments, k=rank, v0=start)
    item_vectors = np.zeros((events.n_items, rank), np.float32)
    input_vectors = np.zeros_like(item_vectors)
    item_vectors[chosen] = directions
    input_vectors[chosen] = weights @ directions
    return LinearTower(torch.from_numpy(input_vectors), torch.from_numpy(item_vectors))


def _gram(events: Events, chosen: np.ndarray) -> np.ndarray:
    """Weighted co-occurrence float32 [C, C] of the `chosen` items, over chunks of users."""
    met = events.matrix()
    weight = np.sqrt(_user_weights(events))
    gram = np.zeros((len(chosen), len(chosen)), np.float32)
    for start in range(0, met.shape[0], _USERS_AT_ONCE):
        rows = slice(start, start + _USERS_AT_ONCE)
        chunk = met[rows][:, chosen].toarray() * weight[rows, None]
        gram += chunk.T @ chunk
    return gram


def _near_gram(events: Events, chosen: np.ndarray) -> np.ndarray:
    """The same with every pair of events weighted by how near they are in their user's history."""
    place = np.full(events.n_items, -1)
    place[chosen] = np.arange(len(chosen))
    item, weight = place[events.item], _user_weights(events)[events.user]
    shape = (len(chosen), len(chosen))
    gram = np.zeros(shape, np.float32)
    for apart in range(1, min(_FAR, len(item) - 1) + 1):
        one, other = slice(None, -apart), slice(apart, None)
        pair = (events.user[one] == events.user[other]) & (item[one] >= 0) & (item[other] >= 0)
        share = weight[one][pair] * np.float32(np.exp(-apart / _NEAR))
        gram += coo_matrix((share, (item[one][pair], item[other][pair])), shape=shape).toarray()
    gram += gram.T
    met = item >= 0
    gram[np.diag_indices_from(gram)] = np.bincount(item[met], weight[met], minlength=len(chosen))
    return gram


def _user_weights(events: Events) -> np.ndarray:
    """Of each user's events, float32 [U]."""
    counts = np.bincount(events.user, minlength=events.n_users)
    weights: np.ndarray = np.maximum(counts, 1).astype(np.float32) ** -_USER_POWER
    return weights


def _solve(gram: np.ndarray, scale: np.ndarray, ridge: float) -> np.ndarray:
    """EASE's item-to-item weights float32 [C, C] of scaled items, for unscaled ones.

    ridge: as a share of all the (scaled) items' own weight.
    """
    scaled = gram * np.outer(scale, scale)  # symmetric to the last bit: inv() takes Cholesky's way
    diagonal = np.diag_indices_from(scaled)
    ridge = ridge * float(np.trace(scaled))
    scaled[diagonal] *= 1 + _OWN_RIDGE
    scaled[diagonal] += ridge
    inverse = inv(scaled, overwrite_a=True)
    weights = inverse / -np.diag(inverse)
    weights[diagonal] = 0
    result: np.ndarray = weights * scale[:, None] / scale[None, :]
    return result
