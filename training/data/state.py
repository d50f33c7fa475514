"""The sums that a bucket leaves behind, on both sides of the cut-off: what `--append` adds to."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.data.features import ItemSums, UserSums

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
    write_state(pa.concat_tables(tables), path)


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
    write_state(pa.concat_tables(tables), path)


def read_user_sums(path: Path, held_out: bool) -> tuple[np.ndarray, UserSums]:
    """user_idx int32 [N], ascending, and the sums of those users that a bucket left behind."""
    return read_both_user_sums(path)[held_out]


def read_both_user_sums(path: Path) -> list[tuple[np.ndarray, UserSums]]:
    """As `read_user_sums`, before the cut-off and of what is held out."""
    table = pq.read_table(path)
    return [_user_sums(part) for part in _sides(table)]


def _user_sums(table: pa.Table) -> tuple[np.ndarray, UserSums]:
    users = table["user_idx"].to_numpy()
    columns = {field.name: table[field.name].to_numpy() for field in fields(UserSums)[:-1]}
    counts = table["genre_counts"].combine_chunks().flatten().to_numpy()
    columns["genre_counts"] = counts.reshape(len(users), len(counts) // len(users))
    return users, UserSums(**columns)


def read_item_sums(path: Path, held_out: bool, n_items: int) -> ItemSums:
    """The sums of all items that a bucket left behind, [I]."""
    sums = [ItemSums.empty(n_items), ItemSums.empty(n_items)]
    add_item_sums(sums, path)
    return sums[held_out]


def add_item_sums(sums: list[ItemSums], path: Path) -> None:
    """Add what a bucket left behind, before the cut-off and held out, to `sums`, in place."""
    for side, table in zip(sums, _sides(pq.read_table(path)), strict=True):
        index = table["item_idx"].to_numpy()  # each once
        for field in fields(ItemSums):
            getattr(side, field.name)[index] += table[field.name].to_numpy()


def _sides(table: pa.Table) -> list[pa.Table]:
    held_out = table["held_out"]
    return [table.filter(side).combine_chunks() for side in (pc.invert(held_out), held_out)]


def write_state(table: pa.Table, path: Path) -> None:
    """Quick to write and to read again; nothing searches in it, so no statistics."""
    pq.write_table(table, path, compression="lz4", use_dictionary=False, write_statistics=False)
