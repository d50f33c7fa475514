"""A prepared data set and a finished run on it, as files, without Ray or training."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.bundles import GENRES, write_tiny_model
from training.data.dataset import EVENT_SCHEMA, load
from training.data.features import item_features
from training.data.splits import split
from training.recipe import Recipe
from training.run import Run


def tiny_run(path: Path, *, seed: int = 0, has_time: bool = True, id_type: str = "int") -> Path:
    """Write path/data and path/run, and return path/run. 12 users, 20 items, 6 events a user."""
    data, run = path / "data", path / "run"
    _write_data(data, seed, has_time, id_type)
    (run / "model").mkdir(parents=True)
    write_tiny_model(run / "model", 20, seed)
    protocol = "leave-one-out" if has_time else "user-random"
    Run(
        status="finished",
        data=str(data),
        fingerprint=f"tiny-{seed}",
        protocol=protocol,
        k_core=0,
        seed=seed,
        split_hash=split(load(data), protocol, k_core=0, seed=seed).hash,
        workers=1,
        recipe=Recipe(epochs=1),
    ).write(run)
    return run


def _write_data(data: Path, seed: int, has_time: bool, id_type: str) -> None:
    rng = np.random.default_rng(seed)
    users, items = 12, 20
    user = np.repeat(np.arange(users), 6).astype(np.int32)
    item = np.concatenate([rng.permutation(items - 1)[:6] for _ in range(users)]).astype(np.int32)
    rating = rng.integers(1, 6, len(user)).astype(np.float32)
    time = np.tile(np.arange(6) * 86_400, users) + 10**9 if has_time else None
    events = pa.table(
        [user, item, rating, pa.array(time) if has_time else pa.nulls(len(user))],
        names=EVENT_SCHEMA.names,
    ).cast(EVENT_SCHEMA)
    (data / "events" / "bucket=0000").mkdir(parents=True)
    pq.write_table(events, data / "events" / "bucket=0000" / "part-0.parquet")

    def ids(count: int) -> list[int] | list[str]:
        numbers = range(1, count + 1)
        return [f"n{n:03d}" for n in numbers] if id_type == "str" else list(numbers)

    pq.write_table(pa.table({"user_id": ids(users)}), data / "users.parquet")
    catalogue = {
        "item_id": ids(items),
        "title": [f"Film {n}" for n in range(items)],
        "name": [f"Film {n}" for n in range(items)],
        "genres": pa.array([[GENRES[n % 5]] if n else [] for n in range(items)]),
        "year": pa.array([None if n % 7 == 0 else 1980 + n for n in range(items)], pa.int32()),
    }
    features = item_features(item, rating, time, n_items=items)
    columns = catalogue | dict(zip(features.column_names, features.columns, strict=True))
    pq.write_table(pa.table(columns), data / "items.parquet")
    statistics = {
        "format": 1,
        "entity": "item" if id_type == "str" else "movie",
        "counts": {"events": len(user), "users": users, "items": items},
        "rating": {"mean": float(rating.mean())},
        "time_range": [int(time.min()), int(time.max())] if has_time else None,
        "fingerprint": f"tiny-{seed}",
    }
    (data / "statistics.json").write_text(json.dumps(statistics))
