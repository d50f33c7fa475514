"""A prepared data set in memory. `marquee prepare` writes what `load` reads.

Index spaces: U users and I items, dense, in ascending order of their original ids;
E events, sorted by (user, timestamp, input order).
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from training.errors import UserError

FORMAT = 1
"""Version of the prepared directory's layout; `statistics.json` carries it."""

EVENT_SCHEMA = pa.schema(
    [
        ("user_idx", pa.int32()),
        ("item_idx", pa.int32()),
        ("rating", pa.float32()),  # null: unrated
        ("timestamp", pa.int64()),  # unix seconds; null: the input has no time
    ]
)


@dataclass(frozen=True)
class Dataset:
    """Events as parallel arrays, with the tables that describe their users and items.

    The events of user u are the rows ``offsets[u]:offsets[u + 1]``, oldest first.
    """

    path: Path
    statistics: dict[str, Any]
    users: pa.Table  # U rows: user_id, then features over all events
    items: pa.Table  # I rows: item_id, title, genres, year, then features over all events
    user: np.ndarray  # int32 [E]
    item: np.ndarray  # int32 [E]
    rating: np.ndarray  # float32 [E], NaN: unrated
    timestamp: np.ndarray  # int64 [E] unix seconds, all 0 when the input has no time
    offsets: np.ndarray  # int64 [U + 1]

    @property
    def entity(self) -> str:
        """What an item is: "movie" for MovieLens, else "item"."""
        return str(self.statistics["entity"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the input and of the code version that prepared it."""
        return str(self.statistics["fingerprint"])

    @cached_property
    def user_ids(self) -> np.ndarray:
        """Original user ids [U], ascending: int64, or str objects."""
        return self.users["user_id"].to_numpy()

    @cached_property
    def item_ids(self) -> np.ndarray:
        """Original item ids [I], ascending: int64, or str objects."""
        return self.items["item_id"].to_numpy()

    @property
    def n_users(self) -> int:
        return self.users.num_rows

    @property
    def n_items(self) -> int:
        """Items of the catalogue, with or without events."""
        return self.items.num_rows

    @property
    def n_events(self) -> int:
        return len(self.user)

    @property
    def has_ratings(self) -> bool:
        return self.statistics["rating"] is not None

    @property
    def has_time(self) -> bool:
        return self.statistics["time_range"] is not None


def load(path: str | Path) -> Dataset:
    """Read a prepared directory; UserError when `path` is not one."""
    path = Path(path)
    statistics = read_statistics(path)
    try:
        events = _read_events(path / "events")
        users = pq.read_table(path / "users.parquet")
        items = pq.read_table(path / "items.parquet")
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path} is not whole ({_first_line(error)}): run `marquee prepare` again"
        ) from error
    if events.num_rows != statistics["counts"]["events"]:
        raise UserError(
            f"{path} holds {events.num_rows} events but its statistics.json says "
            f"{statistics['counts']['events']}: run `marquee prepare` again"
        )
    user = events["user_idx"].to_numpy()
    offsets = np.zeros(users.num_rows + 1, dtype=np.int64)
    np.cumsum(np.bincount(user, minlength=users.num_rows), out=offsets[1:])
    return Dataset(
        path=path,
        statistics=statistics,
        users=users,
        items=items,
        user=user,
        item=events["item_idx"].to_numpy(),
        rating=events["rating"].to_numpy(),
        timestamp=events["timestamp"].fill_null(0).to_numpy(),
        offsets=offsets,
    )


def read_statistics(path: Path) -> dict[str, Any]:
    """The statistics of a prepared directory; UserError when `path` is not one."""
    try:
        statistics: dict[str, Any] = json.loads((path / "statistics.json").read_text("utf-8"))
        version = statistics["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a prepared data set (no readable statistics.json): "
            f"make one with `marquee prepare INPUT {path}`"
        ) from error
    if version != FORMAT:
        raise UserError(
            f"{path} has data format {version}, this version reads {FORMAT}: "
            f"run `marquee prepare` again"
        )
    return statistics


def _read_events(directory: Path) -> pa.Table:
    """All events, in order: the buckets are ranges of user_idx and their names sort."""
    files = sorted(directory.glob("bucket=*/*.parquet"))
    if not files:
        raise FileNotFoundError(f"no events in {directory}")
    return pads.dataset([str(file) for file in files], schema=EVENT_SCHEMA).to_table()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
