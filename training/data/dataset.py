"""A prepared data set in memory. `marquee prepare` writes what `load` reads.

Index spaces: U users and I items, dense, in ascending order of their original ids;
E events, sorted by (user, timestamp, input order). On disk indices are rows of users.parquet and
items.parquet, to which `--append` adds at the end; `load` puts them into order.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.data.remote import MARKER, fetched, is_remote
from training.errors import UserError
from training.model.manifest import VERB

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

    path: str | Path  # a directory, or an s3:// address
    statistics: dict[str, Any]
    users: pa.Table  # U rows: user_id, then features over all events
    items: pa.Table  # I rows: item_id, title, genres, year, then features over all events
    user: np.ndarray  # int32 [E]
    item: np.ndarray  # int32 [E]
    rating: np.ndarray  # float32 [E], NaN: unrated
    timestamp: np.ndarray  # int64 [E] unix seconds, all 0 when the input has no time
    offsets: np.ndarray  # int64 [U + 1]

    @property
    def address(self) -> str:
        """Where it is, from whatever directory it is asked for."""
        return str(self.path if is_remote(self.path) else Path(self.path).absolute())

    @property
    def entity(self) -> str:
        """What an item is: "movie" for MovieLens, else "item"."""
        return str(self.statistics["entity"])

    @property
    def verb(self) -> str:
        """What users have done with the items: "watched" for MovieLens, else "liked"."""
        return str(self.statistics.get("verb", VERB))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the input and of the code version that prepared it."""
        return str(self.statistics["fingerprint"])

    @cached_property
    def user_ids(self) -> np.ndarray:
        """Original user ids [U], ascending: int64, or str objects."""
        ids: np.ndarray = self.users["user_id"].to_numpy()
        return ids

    @cached_property
    def item_ids(self) -> np.ndarray:
        """Original item ids [I], ascending: int64, or str objects."""
        ids: np.ndarray = self.items["item_id"].to_numpy()
        return ids

    @property
    def n_users(self) -> int:
        return int(self.users.num_rows)

    @property
    def n_items(self) -> int:
        """Items of the catalogue, with or without events."""
        return int(self.items.num_rows)

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
    """Read a prepared directory, or an s3:// address of one; UserError when `path` is neither."""
    with fetched(path) as directory:
        return _load(path if is_remote(path) else directory, directory)


def _load(path: str | Path, directory: Path) -> Dataset:
    statistics = read_statistics(directory)
    try:
        parts = _read_events(directory / "events")
        users = pq.read_table(directory / "users.parquet")
        items = pq.read_table(directory / "items.parquet")
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path} is not whole ({_first_line(error)}): run `marquee prepare` again"
        ) from error
    n_events = sum(part.num_rows for part in parts)
    if n_events != statistics["counts"]["events"]:
        raise UserError(
            f"{path} holds {n_events} events but its {MARKER} says "
            f"{statistics['counts']['events']}: run `marquee prepare` again"
        )
    users, user_rank = _ascending(users, "user_id")
    items, item_rank = _ascending(items, "item_id")
    offsets, columns = _by_user(parts, user_rank, item_rank, users.num_rows)
    return Dataset(path, statistics, users, items, **columns, offsets=offsets)


def read_features(path: Path, name: str) -> pa.Table:
    """user_features or item_features of a prepared directory: those before the cut-off.

    Rows in the order of the Dataset's users or items.
    """
    table = pq.read_table(path / f"{name}.parquet")
    return _ascending(table, table.column_names[0])[0]


def read_statistics(path: Path) -> dict[str, Any]:
    """The statistics of a prepared directory; UserError when `path` is not one."""
    try:
        statistics: dict[str, Any] = json.loads((path / MARKER).read_text("utf-8"))
        version = statistics["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a prepared data set (no readable {MARKER}): "
            f"make one with `marquee prepare INPUT {path}`"
        ) from error
    if version != FORMAT:
        raise UserError(
            f"{path} has data format {version}, this version reads {FORMAT}: "
            f"run `marquee prepare` again"
        )
    return statistics


def _read_events(directory: Path) -> list[pa.Table]:
    """The files of events. A user's are in files of one folder whose names sort as they happened.

    Within a file events are in order of user, time and input.
    """
    files = sorted(directory.glob("bucket=*/**/*.parquet"))
    if not files:
        raise FileNotFoundError(f"no events in {directory}")
    return [pq.read_table(file, schema=EVENT_SCHEMA, partitioning=None) for file in files]


def _ascending(table: pa.Table, ids: str) -> tuple[pa.Table, np.ndarray]:
    """The rows in ascending order of their ids, and the new place of each row, int32."""
    order = pc.sort_indices(table[ids]).to_numpy()
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    in_order = np.array_equal(order, np.arange(len(order)))
    return (table if in_order else table.take(pa.array(order))), rank


def _by_user(
    parts: list[pa.Table], user_rank: np.ndarray, item_rank: np.ndarray, n_users: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Offsets int64 [U + 1] and the columns of all events, each put where its user's are."""
    users = [user_rank[part["user_idx"].to_numpy()] for part in parts]
    total = np.zeros(n_users, dtype=np.int64)
    for user in users:
        total += np.bincount(user, minlength=n_users)
    offsets = np.zeros(n_users + 1, dtype=np.int64)
    np.cumsum(total, out=offsets[1:])
    free = offsets[:-1].copy()
    columns = {
        "user": np.empty(offsets[-1], np.int32),
        "item": np.empty(offsets[-1], np.int32),
        "rating": np.empty(offsets[-1], np.float32),
        "timestamp": np.empty(offsets[-1], np.int64),
    }
    for part, user in zip(parts, users, strict=True):
        begins = np.flatnonzero(np.diff(user, prepend=-1))  # of each user's run in this file
        run = np.diff(np.append(begins, len(user)))
        place = np.arange(len(user)) + np.repeat(free[user[begins]] - begins, run)
        columns["user"][place] = user
        columns["item"][place] = item_rank[part["item_idx"].to_numpy()]
        columns["rating"][place] = part["rating"].to_numpy()
        columns["timestamp"][place] = part["timestamp"].fill_null(0).to_numpy()
        free += np.bincount(user, minlength=n_users)
    return offsets, columns


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
