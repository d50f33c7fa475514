"""The map side of the one shuffle: a chunk of the input becomes a file with a batch per bucket.

Users are dealt out to buckets by a hash of their id. A shard is an Arrow file on the staging
directory, which all workers share; bucket b is its batch b, so that the reduce side reads its
part of every shard and nothing else. Memory is bounded by a chunk here and a bucket there,
whatever the number of events; the page cache, not the object store, carries what is between.
"""

import hashlib
import pickle
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.data.events import (
    REASONS,
    VALID,
    Chunk,
    EventError,
    Limits,
    find_rejects,
    read_chunk,
)
from training.data.locations import reason
from training.data.sources import Source
from training.errors import UserError

REJECT_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("rating", pa.float32()),
        ("timestamp", pa.int64()),
        ("reason", pa.string()),
    ]
)
WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]*", re.ASCII)
MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # of splitmix64's finaliser


@dataclass(frozen=True)
class ChunkPlan:
    """What a worker must know to read, check and deal out chunks."""

    source: Source
    limits: Limits
    n_buckets: int
    staging: Path


@dataclass(frozen=True)
class ChunkResult:
    """What a worker found in a chunk.

    problem: why the chunk could not be understood; it is about row `problem_row` of the chunk
        when that is not None.
    """

    chunk: int
    lines: int = 0
    n_events: int = 0  # valid ones
    digest: str = ""
    users: tuple[pa.Array, ...] = ()  # distinct ids, for each piece
    items: tuple[pa.Array, ...] = ()
    shards: tuple[str, ...] = ()
    problem: str | None = None
    problem_row: int | None = None


def deal_chunks(batch: pa.Table, plan: ChunkPlan) -> pa.Table:
    """One pickled ChunkResult for each chunk that `batch` describes.

    A chunk that cannot be understood is a result too: an exception here would reach the user as
    Ray's traceback.
    """
    results = []
    for fields in batch.to_pylist():
        chunk = Chunk(**fields)
        try:
            results.append(_deal(chunk, plan))
        except EventError as error:
            results.append(ChunkResult(chunk.index, problem=error.text, problem_row=error.row))
        except UserError as error:
            results.append(ChunkResult(chunk.index, problem=str(error)))
        except OSError as error:
            problem = f"cannot write in {plan.staging.parent}: {reason(error)}"
            results.append(ChunkResult(chunk.index, problem=problem))
    return pa.table({"result": [pickle.dumps(result) for result in results]})


def bucket_of(ids: pa.Array | pa.ChunkedArray, n_buckets: int) -> np.ndarray:
    """The bucket of each id, uint16 [E]: 17 and "17" are the same user."""
    if pa.types.is_integer(ids.type):
        numbers = ids.to_numpy().astype(np.int64).view(np.uint64)
        return (_mix(numbers) % np.uint64(n_buckets)).astype(np.uint16)
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    coded = ids.dictionary_encode()
    numbers = np.array([_number_of(text) for text in coded.dictionary.to_pylist()], np.uint64)
    buckets = (_mix(numbers) % np.uint64(n_buckets)).astype(np.uint16)
    per_event: np.ndarray = buckets[coded.indices.to_numpy()]
    return per_event


def of_erased(events: pa.Table, erasures: tuple[tuple[str, int], ...]) -> np.ndarray:
    """Which events [E] are of an erased user, of up to the erasure or of no known time."""
    users, until = zip(*erasures, strict=True)
    row = pc.index_in(events["user"].cast(pa.string()), value_set=pa.array(users, pa.string()))
    limit = pa.array(until, pa.int64()).take(row.combine_chunks())
    early = pc.less_equal(events["timestamp"], limit).fill_null(True)
    erased: np.ndarray = np.asarray(row.is_valid()) & np.asarray(early)
    return erased


def write_table(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", compression_level=1, use_dictionary=False)


def reject_table(
    events: pa.Table, file: str | list[str], rows: np.ndarray, reasons: list[str]
) -> pa.Table:
    """Rows of REJECT_SCHEMA for `events` with columns user, item, rating and timestamp."""
    files = [file] * events.num_rows if isinstance(file, str) else file
    columns = {
        "file": pa.array(files, pa.string()),
        "row": pa.array(rows, pa.int64()),
        "user_id": events["user"].cast(pa.string()),
        "item_id": events["item"].cast(pa.string()),
        "rating": events["rating"],
        "timestamp": events["timestamp"],
        "reason": pa.array(reasons, pa.string()),
    }
    return pa.table(columns).cast(REJECT_SCHEMA)


def _deal(chunk: Chunk, plan: ChunkPlan) -> ChunkResult:
    digest = hashlib.sha256()
    file = plan.source.events[chunk.file]
    lines = n_events = 0
    users, items, shards, rejects = [], [], [], []
    for part, piece in enumerate(read_chunk(file, chunk, digest)):
        found = find_rejects(piece.events, plan.limits, has_time=plan.source.has_time)
        valid = piece.events
        if plan.source.erased:
            kept = ~of_erased(valid, plan.source.erased)
            valid, found = valid.filter(pa.array(kept)), found[kept]
        rejected = np.flatnonzero(found != VALID)
        if rejected.size:
            bad = valid.take(rejected)
            reasons = [REASONS[index] for index in found[rejected]]
            rejects.append(reject_table(bad, file.path, bad["row"].to_numpy(), reasons))
            valid = valid.filter(pa.array(found == VALID))
        if valid.num_rows:
            shards.append(f"{chunk.index:06d}-{part:04d}.arrow")
            _write_shard(valid, plan.n_buckets, plan.staging / "shards" / shards[-1])
            users.append(pc.unique(valid["user"]))
            items.append(pc.unique(valid["item"]))
        lines += piece.lines
        n_events += valid.num_rows
    if rejects:
        path = plan.staging / "rejects" / f"chunk-{chunk.index:06d}.parquet"
        write_table(pa.concat_tables(rejects), path)
    return ChunkResult(
        chunk.index,
        lines,
        n_events,
        digest.hexdigest(),
        tuple(users),
        tuple(items),
        tuple(shards),
    )


def _write_shard(events: pa.Table, n_buckets: int, path: Path) -> None:
    """The events in order of their bucket, and within a bucket in that of the input."""
    bucket = bucket_of(events["user"], n_buckets)
    order = np.argsort(bucket, kind="stable")
    table = _narrow(events).take(pa.array(order)).combine_chunks()
    bounds = np.searchsorted(bucket[order], np.arange(n_buckets + 1))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            part = table.slice(start, end - start).to_batches()
            writer.write_batch(part[0] if part else _no_rows(table.schema))


def _narrow(events: pa.Table) -> pa.Table:
    """Ids as int32 where they fit: a third less to write and to read again."""
    for name in ("user", "item"):
        column = events[name]
        if column.type == pa.int64():
            low_high = pc.min_max(column).as_py()
            if low_high["min"] >= -(2**31) and low_high["max"] < 2**31:
                index = events.schema.get_field_index(name)
                events = events.set_column(index, name, column.cast(pa.int32()))
    return events


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


def _number_of(text: str) -> int:
    """What stands for a text id in the hash: itself when it is a plain whole number."""
    if WHOLE_NUMBER.fullmatch(text) and -(2**63) <= (number := int(text)) < 2**63:
        return number & (2**64 - 1)
    raw = text.encode()
    return zlib.crc32(raw) << 32 | zlib.adler32(raw)


def _mix(value: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: neighbouring ids go to unrelated buckets. uint64 to uint64."""
    for shift, multiplier in zip((30, 27), MULTIPLIERS, strict=True):
        value = (value ^ (value >> np.uint64(shift))) * np.uint64(multiplier)
    mixed: np.ndarray = value ^ (value >> np.uint64(31))
    return mixed
