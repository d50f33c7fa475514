"""Prepared data whose next event is always known, small enough for real trainings."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.data.dataset import EVENT_SCHEMA

N_USERS, N_ITEMS, LENGTH = 150, 50, 12


def write_walks(path: Path) -> Path:
    """Prepared data whose users walk round a circle of items: the next one is always known."""
    rng = np.random.default_rng(0)
    walk = (rng.integers(0, N_ITEMS, N_USERS)[:, None] + np.arange(LENGTH)) % N_ITEMS
    user = np.repeat(np.arange(N_USERS), LENGTH)
    time = np.tile(np.arange(LENGTH) * 86_400, N_USERS) + 10**9
    columns = [user, walk.ravel(), pa.nulls(len(user)), time]
    (path / "events" / "bucket=0000").mkdir(parents=True)
    events = pa.table(columns, names=EVENT_SCHEMA.names).cast(EVENT_SCHEMA)
    pq.write_table(events, path / "events" / "bucket=0000" / "part-0.parquet")
    pq.write_table(pa.table({"user_id": np.arange(N_USERS)}), path / "users.parquet")
    items = {
        "item_id": np.arange(N_ITEMS),
        "title": [f"Film {index}" for index in range(N_ITEMS)],
        "genres": pa.array([["a"]] * N_ITEMS),
        "year": pa.array([2000] * N_ITEMS, pa.int32()),
    }
    pq.write_table(pa.table(items), path / "items.parquet")
    statistics = {
        "format": 1,
        "entity": "movie",
        "counts": {"events": len(user), "users": N_USERS, "items": N_ITEMS},
        "rating": None,
        "time_range": [int(time.min()), int(time.max())],
        "fingerprint": "walks",
    }
    (path / "statistics.json").write_text(json.dumps(statistics))
    return path
