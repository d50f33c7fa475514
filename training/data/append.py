"""What `marquee prepare --append` takes over from the directory that it adds to.

Indices of users and items are for ever: new ones come after the old ones, so that no file of
events is written again because of a new id. dataset.load puts them into ascending order.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.data.dataset import read_statistics
from training.data.features import ITEM_FEATURES
from training.data.sources import Source
from training.data.state import STATE
from training.errors import UserError


@dataclass(frozen=True)
class Previous:
    """A prepared directory that can be appended to."""

    path: Path
    n_buckets: int
    genres: list[str]
    fingerprint: str
    user_ids: pa.Array  # by user_idx
    catalogue: pa.Table  # by item_idx
    n_events: np.ndarray  # of each item
    rejects: pa.Table
    log_position: str | None  # how far an event log was read into it
    erasures: str | None  # the newest erasure that it respects

    @classmethod
    def open(cls, path: Path, source: Source) -> "Previous":
        """UserError when `path` is not a prepared directory, or not one for such events."""
        path = path.resolve()
        statistics = read_statistics(path)
        if "layout" not in statistics or not (path / STATE).is_dir():
            raise UserError(f"{path} cannot be appended to: prepare it once more as a whole")
        has_time = statistics["time_range"] is not None
        if has_time != source.has_time:
            raise UserError(
                f"{path} was prepared {'with' if has_time else 'without'} times and the new "
                f"events have {'none' if has_time else 'some'}: append events of the same kind"
            )
        if statistics["entity"] != source.entity:
            raise UserError(
                f"{path} holds events of {statistics['entity']}s, the new ones are of "
                f"{source.entity}s: prepare them apart"
            )
        items = pq.read_table(path / "items.parquet")
        return cls(
            path=path,
            n_buckets=statistics["layout"]["buckets"],
            genres=statistics["layout"]["genres"],
            fingerprint=statistics["fingerprint"],
            user_ids=pq.read_table(path / "users.parquet", columns=["user_id"])[
                "user_id"
            ].combine_chunks(),
            catalogue=items.drop_columns(list(ITEM_FEATURES)),
            n_events=items["n_events"].to_numpy(),
            rejects=pq.read_table(path / "rejects.parquet"),
            log_position=statistics.get("event_log"),
            erasures=statistics.get("erasures"),
        )

    @property
    def item_ids(self) -> pa.Array:
        return self.catalogue["item_id"].combine_chunks()


def join_catalogues(previous: Previous, new: pa.Table | None) -> tuple[pa.Table, bool]:
    """The new descriptions, and the old ones of the items that `new` does not describe.

    And whether the categories of an item that has events change: they are in its users' sums.
    UserError when the old and the new descriptions have not the same columns.
    """
    old = previous.catalogue
    if new is None:
        return old, False
    old_ids, new_ids = old["item_id"], new["item_id"]
    if old_ids.type != new_ids.type:
        old_ids, new_ids = old_ids.cast(pa.string()), new_ids.cast(pa.string())
        old = old.set_column(0, "item_id", old_ids)
        new = new.set_column(new.schema.get_field_index("item_id"), "item_id", new_ids)
    if set(old.column_names) != set(new.column_names):
        differing = sorted(set(old.column_names) ^ set(new.column_names))
        raise UserError(
            f"the new items differ from the old ones in the column {differing[0]!r}: "
            f"append items with the same columns, or prepare everything at once"
        )
    rows = pc.index_in(old_ids, value_set=new_ids.combine_chunks())
    described = np.flatnonzero(rows.is_valid().to_numpy())
    before = old["genres"].take(pa.array(described)).to_pylist()
    after = new["genres"].take(rows.drop_null()).to_pylist()
    changed = any(
        previous.n_events[index] and set(was) != set(becomes)
        for index, was, becomes in zip(described.tolist(), before, after, strict=True)
    )
    kept = old.filter(rows.is_null()).select(new.column_names).cast(new.schema)
    return pa.concat_tables([new, kept]), changed


def map_genres(previous: Previous, names: list[str]) -> np.ndarray:
    """For each of the genres of now its column in the state before, or -1; int [G]."""
    column = {name: index for index, name in enumerate(previous.genres)}
    return np.array([column.get(name, -1) for name in names], dtype=np.int64)
