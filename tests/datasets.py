"""Prepared data sets in memory, without Ray or files."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from training.data.dataset import Dataset


def make_dataset(user, item, rating=None, timestamp=None, n_items=None):
    """A Dataset of parallel sequences of indices, sorted as `prepare` would; ids are 10, 20, ..."""
    user, item = np.asarray(user, np.int32), np.asarray(item, np.int32)
    time = np.zeros(len(user), np.int64) if timestamp is None else np.asarray(timestamp, np.int64)
    stars = np.full(len(user), np.nan) if rating is None else np.asarray(rating, np.float64)
    order = np.lexsort((time, user))
    n_users = int(user.max()) + 1
    n_items = n_items or int(item.max()) + 1
    counts = np.bincount(user, minlength=n_users)
    return Dataset(
        path=Path("in-memory"),
        statistics={
            "format": 1,
            "entity": "item",
            "counts": {"events": len(user), "users": n_users, "items": n_items},
            "rating": None if rating is None else {"mean": float(np.nanmean(stars))},
            "time_range": None if timestamp is None else [int(time.min()), int(time.max())],
            "fingerprint": "in-memory",
        },
        users=pa.table({"user_id": np.arange(1, n_users + 1) * 10}),
        items=pa.table(
            {
                "item_id": np.arange(1, n_items + 1) * 10,
                "title": [f"Item {index}" for index in range(n_items)],
                "genres": pa.array([[]] * n_items, pa.list_(pa.string())),
                "year": pa.nulls(n_items, pa.int32()),
            }
        ),
        user=user[order],
        item=item[order],
        rating=stars[order].astype(np.float32),
        timestamp=time[order],
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


def random_dataset(n_users=40, n_items=30, events_per_user=12, seed=0):
    """Every user with the same number of different items, at random times."""
    rng = np.random.default_rng(seed)
    item = rng.random((n_users, n_items)).argsort(axis=1)[:, :events_per_user].ravel()
    user = np.repeat(np.arange(n_users), events_per_user)
    rating = rng.integers(1, 6, len(user))
    return make_dataset(user, item, rating, rng.integers(0, 10**6, len(user)), n_items=n_items)
