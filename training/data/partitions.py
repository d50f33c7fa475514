"""What Ray workers do while data is prepared: one chunk of the input, then one range of users.

Results too large for the driver go to files of a staging directory that all workers share; each
has one writer and a fixed name, so that a task that Ray runs again writes the same file again.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.data.dataset import EVENT_SCHEMA
from training.data.events import DUPLICATE, REASONS, VALID, Chunk, Limits, find_rejects, read_chunk
from training.data.features import DAY_S, ItemSums, user_features
from training.data.sources import EventFile
from training.errors import UserError

REJECT_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("rating", pa.float32()),
        ("timestamp", pa.int64()),
        ("reason", pa.string()),
    ]
)
ITEM_SUM_COLUMNS = tuple(ItemSums.__dataclass_fields__)


@dataclass(frozen=True)
class ChunkPlan:
    """What a worker must know to read and check chunks."""

    file: EventFile
    limits: Limits
    staging: Path


@dataclass(frozen=True)
class Numbering:
    """Which index stands for each id of the events."""

    keys: pa.Array  # distinct ids as they were read
    index: np.ndarray  # int32, for each key
    ids: pa.Array  # [n] ids by index: ascending

    def of(self, column: pa.ChunkedArray) -> np.ndarray:
        """Indices int32 [E] of a column of ids."""
        return self.index[pc.index_in(column, value_set=self.keys).to_numpy()]


@dataclass(frozen=True)
class BucketPlan:
    """What a worker must know to number events and to write ranges of users."""

    users: Numbering
    items: Numbering
    n_buckets: int
    genre_names: list[str]
    genres: np.ndarray  # bool [I, G]
    now: int | None  # the last event's time; None without time
    halved_at: int | None
    staging: Path

    def bucket_of(self, user: np.ndarray) -> np.ndarray:
        """Buckets are ranges of user_idx, so that events in bucket order are in user order."""
        return (user.astype(np.int64) * self.n_buckets // len(self.users.ids)).astype(np.int32)

    def first_user(self, bucket: int) -> int:
        return -(-bucket * len(self.users.ids) // self.n_buckets)


def check_chunks(batch: pa.Table, plan: ChunkPlan) -> pa.Table:
    """Valid events of the chunks that `batch` describes, one chunk a row.

    Rejected events and a summary of each chunk go to the staging directory. A chunk that cannot
    be understood gives no events, and the summary says why: an exception here would reach the
    user as Ray's traceback.
    """
    tables = []
    for fields in batch.to_pylist():
        chunk = Chunk(**fields)
        try:
            events = read_chunk(plan.file, chunk)
        except UserError as error:
            _write(pa.table({"problem": [str(error)]}), plan.staging, "chunks", chunk.index)
            continue
        reason = find_rejects(events, plan.file, plan.limits)
        rejected = np.flatnonzero(reason != VALID)
        valid = events
        if rejected.size:
            valid = events.filter(pa.array(reason == VALID))
            rejects = _rejects(events.take(rejected), [REASONS[i] for i in reason[rejected]])
            _write(rejects, plan.staging, "rejects", f"chunk-{chunk.index:06d}")
        _write(_chunk_summary(valid), plan.staging, "chunks", chunk.index)
        tables.append(valid)
    return pa.concat_tables(tables) if tables else pa.table({"row": pa.array([], pa.int64())})


def number_events(events: pa.Table, plan: BucketPlan) -> pa.Table:
    """Ids replaced by indices, and the bucket of each event."""
    user = plan.users.of(events["user"])
    return pa.table(
        {
            "bucket": plan.bucket_of(user),
            "user_idx": user,
            "item_idx": plan.items.of(events["item"]),
            "rating": events["rating"],
            "timestamp": events["timestamp"],
            "row": events["row"],
        }
    )


def write_buckets(events: pa.Table, plan: BucketPlan) -> pa.Table:
    """Sort, deduplicate, describe and write whole buckets; returns a row of counts for each."""
    columns = events["bucket"].to_numpy() if events.num_rows else np.array([], np.int32)
    counts = [
        _write_bucket(events.filter(pa.array(columns == bucket)), int(bucket), plan)
        for bucket in np.unique(columns)
    ]
    return pa.table(
        {
            "events": pa.array([events for events, _ in counts], pa.int64()),
            "duplicates": pa.array([duplicates for _, duplicates in counts], pa.int64()),
        }
    )


def _write_bucket(events: pa.Table, bucket: int, plan: BucketPlan) -> tuple[int, int]:
    user, item = events["user_idx"].to_numpy(), events["item_idx"].to_numpy()
    time, row = events["timestamp"].fill_null(0).to_numpy(), events["row"].to_numpy()
    repeated = _repeats(user, item, time, row)
    if repeated.any():
        rejects = _duplicates(events.filter(pa.array(repeated)), plan)
        _write(rejects, plan.staging, "rejects", f"bucket-{bucket:06d}")
    order = np.lexsort((row, time, user))
    events = events.take(order[~repeated[order]])

    name = f"bucket={bucket:04d}"
    (plan.staging / "events" / name).mkdir(parents=True, exist_ok=True)
    pq.write_table(
        events.select(EVENT_SCHEMA.names).cast(EVENT_SCHEMA),
        plan.staging / "events" / name / "part-0.parquet",
    )
    _describe(events, bucket, plan)
    return events.num_rows, int(repeated.sum())


def _describe(events: pa.Table, bucket: int, plan: BucketPlan) -> None:
    """Write the features of the bucket's users and its part of the items' sums."""
    first = plan.first_user(bucket)
    user = events["user_idx"].to_numpy() - first
    item, rating = events["item_idx"].to_numpy(), events["rating"].to_numpy()
    time = events["timestamp"].to_numpy() if plan.now is not None else None
    users = user_features(
        user,
        item,
        rating,
        time,
        n_users=plan.first_user(bucket + 1) - first,
        genre_names=plan.genre_names,
        genres=plan.genres,
        now=plan.now,
    )
    _write(users, plan.staging, "users", bucket)
    n_items = len(plan.items.ids)
    sums = ItemSums.of(item, rating, time, n_items=n_items, halved_at=plan.halved_at)
    present = np.flatnonzero(sums.n_events)
    columns = {name: getattr(sums, name)[present] for name in ITEM_SUM_COLUMNS}
    _write(pa.table({"item_idx": present, **columns}), plan.staging, "items", bucket)


def _repeats(user: np.ndarray, item: np.ndarray, time: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Events (bool [E]) that equal an earlier one in user, item and time."""
    order = np.lexsort((row, time, item, user))
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for column in (user, item, time):
        same &= column[order[1:]] == column[order[:-1]]
    repeated = np.zeros(len(order), dtype=bool)
    repeated[order[1:]] = same
    return repeated


def _duplicates(events: pa.Table, plan: BucketPlan) -> pa.Table:
    with_ids = {
        "row": events["row"],
        "user": plan.users.ids.take(events["user_idx"]),
        "item": plan.items.ids.take(events["item_idx"]),
        "rating": events["rating"],
        "timestamp": events["timestamp"],
    }
    return _rejects(pa.table(with_ids), [DUPLICATE] * events.num_rows)


def _rejects(events: pa.Table, reasons: list[str]) -> pa.Table:
    columns = events.rename_columns(["row", "user_id", "item_id", "rating", "timestamp"])
    return columns.append_column("reason", pa.array(reasons, pa.string())).cast(REJECT_SCHEMA)


def _chunk_summary(events: pa.Table) -> pa.Table:
    """One row: distinct ids, and events by day."""
    time = events["timestamp"].drop_null().to_numpy()
    days, counts = np.unique(time // DAY_S, return_counts=True)
    return pa.table(
        {
            "n_events": [events.num_rows],
            "users": _as_list(events["user"].unique()),
            "items": _as_list(events["item"].unique()),
            "days": _as_list(pa.array(days)),
            "day_counts": _as_list(pa.array(counts)),
            "first_time": pa.array([time.min() if len(time) else None], pa.int64()),
            "last_time": pa.array([time.max() if len(time) else None], pa.int64()),
        }
    )


def _as_list(values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def _write(table: pa.Table, staging: Path, kind: str, name: int | str) -> None:
    """A file of the staging directory; names sort as their numbers do."""
    stem = name if isinstance(name, str) else f"{name:06d}"
    pq.write_table(table, staging / kind / f"{stem}.parquet")
