"""The sums that a bucket leaves behind, on both sides of the cut-off: what `--append` adds to."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.data.features import ItemSums, UserSums
from training.data.shards import write_table

STATE = "state"


def users_file(root: Path, bucket: int) -> Path:
    return root / STATE / f"users-{bucket:04d}.parquet"


def items_file(root: Path, bucket: int) -> Path:
    return root / STATE / f"items-{bucket:04d}.parquet"


def write_user_sums(path: Path, users: np.ndarray, sums: list[UserSums]) -> None:
    """Keep the sums of `users` (user_idx [N]) before the cut-off and of what is held out."""
    tables = []
    for held_out, part in enumerate(sums):
        columns = {
            "user_idx": pa.array(users.astype(np.int32)),
            "held_out": pa.array(np.full(len(users), bool(held_out))),
        }
        for field in fields(UserSums)[:-1]:
            columns[field.name] = pa.array(getattr(part, field.name))
        n_genres = part.genre_counts.shape[1]
        ends = pa.array(np.arange(len(users) + 1, dtype=np.int32) * n_genres)
        counts = pa.array(part.genre_counts.ravel())
        columns["genre_counts"] = pa.ListArray.from_arrays(ends, counts)
        tables.append(pa.table(columns))
    write_table(pa.concat_tables(tables), path)


def write_item_sums(path: Path, sums: list[ItemSums]) -> None:
    """Keep the sums of the items that a bucket's users met, before the cut-off and held out."""
    tables = []
    for held_out, part in enumerate(sums):
        present = np.flatnonzero(part.n_events)
        columns = {
            "item_idx": pa.array(present.astype(np.int32)),
            "held_out": pa.array(np.full(len(present), bool(held_out))),
        }
        for field in fields(ItemSums):
            columns[field.name] = pa.array(getattr(part, field.name)[present].astype(np.float64))
        tables.append(pa.table(columns))
    write_table(pa.concat_tables(tables), path)


def read_user_sums(path: Path, held_out: bool) -> tuple[np.ndarray, UserSums]:
    """user_idx int32 [N], ascending, and the sums of those users that a bucket left behind."""
    table = pq.read_table(path)
    table = table.filter(pc.equal(table["held_out"], held_out)).combine_chunks()
    users = table["user_idx"].to_numpy()
    columns = {field.name: table[field.name].to_numpy() for field in fields(UserSums)[:-1]}
    counts = table["genre_counts"].combine_chunks().flatten().to_numpy()
    columns["genre_counts"] = counts.reshape(len(users), len(counts) // len(users))
    return users, UserSums(**columns)


def read_item_sums(path: Path, held_out: bool, n_items: int) -> ItemSums:
    """The sums of all items that a bucket left behind, [I]."""
    sums = ItemSums.empty(n_items)
    add_item_sums(sums, path, held_out)
    return sums


def add_item_sums(sums: ItemSums, path: Path, held_out: bool) -> None:
    """Add what a bucket left behind to `sums`, in place."""
    table = pq.read_table(path)
    table = table.filter(pc.equal(table["held_out"], held_out))
    index = table["item_idx"].to_numpy()  # each once
    for field in fields(ItemSums):
        getattr(sums, field.name)[index] += table[field.name].to_numpy()
