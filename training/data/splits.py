"""Which events a model may learn from and which it is judged on: four protocols.

| Protocol        | TEST                                                                     |
|-----------------|--------------------------------------------------------------------------|
| leave-one-out   | every user's last event, after an iterative 5-core                        |
| user-temporal   | every user's last ``n // 5`` of n events                                  |
| user-random     | ``n // 5`` of every user's n events, drawn with the seed                  |
| global-temporal | of the last tenth of all events, those whose user and item came before it |

These definitions reproduce published reference figures on MovieLens 1M. VALIDATION is carved
from what is left, in the same way as TEST was, and never overlaps it. A baseline is fitted on
TRAIN + VALIDATION, and so is the history that a model is given at test time.

An event that no ranking of unseen items could get right is DROPPED from the held-out folds: a
repeat of a (user, item) pair that came before it. Without repeats in the input (MovieLens has
none) TRAIN + VALIDATION + TEST is every event that the k-core keeps, except under
global-temporal, which also drops the held-out events of cold users and items.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from training.data.dataset import Dataset
from training.errors import UserError

TRAIN, VALIDATION, TEST, DROPPED = 0, 1, 2, -1

PROTOCOLS = ("leave-one-out", "user-temporal", "user-random", "global-temporal")

TEST_SHARE = 5  # one in five events of a user, under user-temporal and user-random
GLOBAL_TRAIN_SHARE = 0.9  # of all events, under global-temporal
LEAVE_ONE_OUT_CORE = 5


@dataclass(frozen=True)
class Split:
    """The fold of every event of a data set, and what makes it reproducible."""

    protocol: str
    k_core: int
    seed: int
    fold: np.ndarray  # int8 [E]: TRAIN, VALIDATION, TEST or DROPPED
    catalogue: np.ndarray  # bool [I]: items that may be recommended (seen before TEST)
    hash: str  # SHA-256 over the ids and the fold of every event


def split(
    dataset: Dataset,
    protocol: str,
    *,
    k_core: int | None = None,
    seed: int = 0,
    validation_users: int = 2000,
) -> Split:
    """Cut `dataset` by `protocol`, one of PROTOCOLS.

    k_core: keep only users and items with at least this many events, iteratively; by default 5
        for leave-one-out and 0 (off) for the others.
    seed: draws user-random's events and the validation users.
    validation_users: how many users VALIDATION is taken from; leave-one-out takes all.

    UserError for an unknown protocol, a data set without time where the protocol needs it, or
    too few users or events to hold any out.
    """
    _check(dataset, protocol)
    if k_core is None:
        k_core = default_core(protocol)
    kept = np.flatnonzero(core(dataset.user, dataset.item, k_core))
    if kept.size == 0:
        raise UserError(f"no event is left after {k_core}-core filtering: use a smaller --k-core")
    user, item = dataset.user[kept], dataset.item[kept]
    rng = np.random.default_rng(seed)
    if protocol == "leave-one-out":
        fold = _leave_one_out(user)
    elif protocol == "global-temporal":
        fold = _global_temporal(user, item, dataset.timestamp[kept], rng, validation_users)
    else:
        fold = _per_user(user, rng, validation_users, shuffle=protocol == "user-random")
    _drop_repeats(user, item, fold)
    _check_folds(fold, user, protocol)

    whole = np.full(dataset.n_events, DROPPED, dtype=np.int8)
    whole[kept] = fold
    fitted = (whole == TRAIN) | (whole == VALIDATION)
    catalogue = np.bincount(dataset.item[fitted], minlength=dataset.n_items) > 0
    return Split(protocol, k_core, seed, whole, catalogue, _hash(dataset, whole))


def default_core(protocol: str) -> int:
    """The k-core that published figures of the protocol are measured on; 0 is none."""
    return LEAVE_ONE_OUT_CORE if protocol == "leave-one-out" else 0


def core(user: np.ndarray, item: np.ndarray, k: int) -> np.ndarray:
    """Events [E] (bool) of the k-core: every user and item left has at least k events left."""
    keep = np.ones(len(user), dtype=bool)
    while k > 1:
        user_count = np.bincount(user[keep], minlength=user.max(initial=0) + 1)
        item_count = np.bincount(item[keep], minlength=item.max(initial=0) + 1)
        smaller = keep & (user_count[user] >= k) & (item_count[item] >= k)
        if smaller.sum() == keep.sum():
            break
        keep = smaller
    return keep


def _leave_one_out(user: np.ndarray) -> np.ndarray:
    """Last event TEST, second-last VALIDATION; a user keeps at least one event in TRAIN."""
    rank, count = _rank_in_user(user)
    fold = np.full(len(user), TRAIN, dtype=np.int8)
    fold[(rank == count - 1) & (count >= 2)] = TEST
    fold[(rank == count - 2) & (count >= 3)] = VALIDATION
    return fold


def _per_user(
    user: np.ndarray, rng: np.random.Generator, validation_users: int, *, shuffle: bool
) -> np.ndarray:
    """The last fifth of each user TEST, in time's order or in a drawn one."""
    rank, count = _rank_in_user(user)
    if shuffle:
        drawn = np.lexsort((rng.random(len(user)), user))
        ordered = rank.copy()
        rank[drawn] = ordered
    n_train = count - count // TEST_SHARE
    n_validation = np.maximum(n_train // TEST_SHARE, 1)
    fold = np.where(rank >= n_train, TEST, TRAIN).astype(np.int8)
    sampled = _sample_users(user[n_train >= 2], rng, validation_users)
    held = np.isin(user, sampled) & (rank < n_train) & (rank >= n_train - n_validation)
    fold[held] = VALIDATION
    return fold


def _global_temporal(
    user: np.ndarray,
    item: np.ndarray,
    timestamp: np.ndarray,
    rng: np.random.Generator,
    validation_users: int,
) -> np.ndarray:
    """The last tenth of time TEST, and the last tenth of what precedes it VALIDATION."""
    position = np.empty(len(user), dtype=np.int64)
    position[np.argsort(timestamp, kind="stable")] = np.arange(len(user))
    test_start = int(len(user) * GLOBAL_TRAIN_SHARE)
    validation_start = int(test_start * GLOBAL_TRAIN_SHARE)
    before_test = position < test_start
    before_validation = position < validation_start
    fold = np.where(before_test, TRAIN, DROPPED).astype(np.int8)
    fold[~before_test & _is_warm(user, before_test) & _is_warm(item, before_test)] = TEST
    late = (
        before_test
        & ~before_validation
        & _is_warm(user, before_validation)
        & _is_warm(item, before_validation)
    )
    sampled = _sample_users(user[late], rng, validation_users)
    fold[late & np.isin(user, sampled)] = VALIDATION
    return fold


def _is_warm(index: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Whether the user or item of each event has an event among `before` (bool [E])."""
    known: np.ndarray = (np.bincount(index[before], minlength=index.max() + 1) > 0)[index]
    return known


def _sample_users(user: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """At most `size` of the distinct users in `user`."""
    candidates = np.unique(user)
    return rng.permutation(candidates)[:size]


def _rank_in_user(user: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position of each event within its user, from 0, and the user's number of events.

    `user` is ascending. Both results are int64 [E].
    """
    count = np.bincount(user)
    start = np.cumsum(count) - count
    return np.arange(len(user)) - start[user], count[user]


def _drop_repeats(user: np.ndarray, item: np.ndarray, fold: np.ndarray) -> None:
    """Drop, in place, held-out events whose (user, item) is in an earlier fold or event.

    Folds follow each other in time, so what TRAIN has seen, VALIDATION cannot be asked for.
    """
    pair = user.astype(np.int64) * (int(item.max()) + 1) + item
    order = np.lexsort((np.where(fold == DROPPED, TEST + 1, fold), pair))
    repeat = np.zeros(len(user), dtype=bool)
    repeat[order[1:]] = pair[order[1:]] == pair[order[:-1]]
    fold[repeat & (fold != TRAIN)] = DROPPED


def _check(dataset: Dataset, protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise UserError(f"unknown protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")
    if protocol == "global-temporal" and not dataset.has_time:
        raise UserError(
            f"{dataset.path} has no time, which global-temporal needs: use user-random, "
            f"or prepare again with --time COL"
        )
    if dataset.n_users < 2:
        raise UserError(
            f"{dataset.path} has events of a single user: nothing can be learnt from others"
        )


def _check_folds(fold: np.ndarray, user: np.ndarray, protocol: str) -> None:
    for name, value in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST)):
        if not (fold == value).any():
            raise UserError(
                f"{protocol} leaves no {name} event: {len(fold)} events of "
                f"{len(np.unique(user))} users are too few, use more events or another protocol"
            )


def _hash(dataset: Dataset, fold: np.ndarray) -> str:
    digest = hashlib.sha256()
    for ids in (dataset.user_ids, dataset.item_ids):
        digest.update("\n".join(map(str, ids.tolist())).encode())
    for array in (dataset.user, dataset.item, fold):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
