"""Prepared data sets: in memory, without Ray or files, and two of them compared."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from training.data.dataset import Dataset, load, read_features


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


def assert_same(one, other):
    """Everything that a reader sees of two prepared directories, row by row."""
    left, right = load(one), load(other)
    assert left.users.column("user_id").equals(right.users.column("user_id"))
    for name in ("user", "item", "rating", "timestamp", "offsets"):
        assert np.array_equal(getattr(left, name), getattr(right, name), equal_nan=True), name
    tables = [(left.users, right.users), (left.items, right.items)]
    for name in ("user_features", "item_features"):
        tables.append((read_features(one, name), read_features(other, name)))
    for table, expected in tables:
        assert table.column_names == expected.column_names
        for column in table.column_names:
            _assert_equal_columns(table[column], expected[column], column)
    free = ("fingerprint", "layout", "shape")
    strip = lambda statistics: {k: v for k, v in statistics.items() if k not in free}  # noqa: E731
    assert strip(left.statistics) == strip(right.statistics)


def _assert_equal_columns(column, expected, name):
    assert column.type == expected.type, name
    if not pa.types.is_floating(column.type):
        assert column.to_pylist() == expected.to_pylist(), name
        return
    # Sums of other parts round differently: half stars do not, times do.
    assert np.allclose(column.to_numpy(), expected.to_numpy(), rtol=1e-5, atol=1e-6, equal_nan=True)
