"""Reading a file of events in chunks, each with its row numbers, and rejecting bad rows.

A csv of 25 million ratings is one file, which Ray Data would read with one task: `scan` cuts it
at line ends (and Parquet at its row groups), so that every chunk can be read by another worker.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from training.data.columns import BadValueError, to_ids, to_ratings, to_times
from training.data.sources import EventFile
from training.errors import UserError

CHUNK_BYTES = 16 * 2**20
SCAN_BYTES = 2**22

NO_USER = "no user"
NO_ITEM = "no item"
RATING_NOT_FINITE = "rating not finite"
RATING_OUT_OF_RANGE = "rating out of range"
NO_TIME = "no time"
TIME_NEGATIVE = "time before 1970"
TIME_IN_FUTURE = "time in the future"
DUPLICATE = "duplicate event"
REASONS = (
    NO_USER,
    NO_ITEM,
    RATING_NOT_FINITE,
    RATING_OUT_OF_RANGE,
    NO_TIME,
    TIME_NEGATIVE,
    TIME_IN_FUTURE,
    DUPLICATE,
)
VALID = -1


@dataclass(frozen=True)
class Chunk:
    """A part of a file: bytes [start, end) of text, or row group `start` of Parquet."""

    index: int
    start: int
    end: int
    first_row: int  # 1-based; in a text file it is the number of the line, header included


@dataclass(frozen=True)
class Limits:
    """What a valid event may hold. `now` is in unix seconds."""

    rating_range: tuple[float, float] | None
    now: int


@dataclass(frozen=True)
class Scan:
    """The chunks of a file, its number of rows (empty lines counted) and SHA-256."""

    chunks: list[Chunk]
    n_rows: int
    sha256: str


def scan(file: EventFile, chunk_bytes: int = CHUNK_BYTES) -> Scan:
    """Cut a file into chunks of about `chunk_bytes`; UserError when it holds no events."""
    digest = hashlib.sha256()
    line_ends = _line_ends_near(file.path, chunk_bytes, digest)
    n_rows = line_ends[-1][1] if line_ends else 0
    if file.delimiter is None:
        groups = pq.ParquetFile(file.path).metadata
        sizes = [groups.row_group(index).num_rows for index in range(groups.num_row_groups)]
        first = np.cumsum([1, *sizes]).tolist()
        n_rows = sum(sizes)
        chunks = [Chunk(i, i, i + 1, first[i]) for i in range(len(sizes)) if sizes[i]]
    else:
        chunks = _text_chunks(file, line_ends)
    if not chunks:
        raise UserError(f"{file.path} holds no events")
    return Scan(chunks, n_rows, digest.hexdigest())


def read_chunk(file: EventFile, chunk: Chunk) -> pa.Table:
    """Columns row int64, user and item (int64 or string), rating float32, timestamp int64.

    Columns that the file lacks are null. UserError names the row, column and value where text
    stands for a number, and rows with too many or too few fields.
    """
    if file.delimiter is None:
        table = pq.ParquetFile(file.path).read_row_group(chunk.start, columns=file.columns)
        rows = np.arange(chunk.first_row, chunk.first_row + table.num_rows)
    else:
        with file.path.open("rb") as stream:
            stream.seek(chunk.start)
            raw = stream.read(chunk.end - chunk.start)
        table = _parse(file, chunk, raw)
        rows = _row_numbers(raw, chunk.first_row, table.num_rows)
    try:
        return _typed(file, table, rows)
    except _LocatedError as error:
        bad = error.bad
        raise UserError(
            f"{file.path}: row {rows[bad.position]}, column {error.column!r}: "
            f"{bad.value!r} is not {bad.expected}"
        ) from None


def find_rejects(events: pa.Table, file: EventFile, limits: Limits) -> np.ndarray:
    """For each event the index into REASONS of its first fault, int8 [E], or VALID."""
    faults = _faults(events, file, limits)
    reason = np.full(events.num_rows, VALID, dtype=np.int8)
    for name, mask in faults.items():
        reason[mask & (reason == VALID)] = REASONS.index(name)
    return reason


def _faults(events: pa.Table, file: EventFile, limits: Limits) -> dict[str, np.ndarray]:
    rating, time = events["rating"], events["timestamp"]
    faults = {
        NO_USER: _mask(events["user"].is_null()),
        NO_ITEM: _mask(events["item"].is_null()),
        # A null rating compares as null, which _mask takes for "no fault": it is unrated.
        RATING_NOT_FINITE: _mask(pc.invert(pc.is_finite(rating))),
    }
    if limits.rating_range is not None:
        low, high = limits.rating_range
        outside = pc.or_(pc.less(rating, low), pc.greater(rating, high))
        faults[RATING_OUT_OF_RANGE] = _mask(outside)
    if file.time is not None:
        faults[NO_TIME] = _mask(time.is_null())
        faults[TIME_NEGATIVE] = _mask(pc.less(time, 0))
        faults[TIME_IN_FUTURE] = _mask(pc.greater(time, limits.now))
    return faults


def _mask(column: pa.ChunkedArray) -> np.ndarray:
    return column.fill_null(False).to_numpy()


class _LocatedError(Exception):
    """A bad value and the column it is in."""

    def __init__(self, column: str, bad: BadValueError) -> None:
        super().__init__(column, bad)
        self.column, self.bad = column, bad


def _typed(file: EventFile, table: pa.Table, rows: np.ndarray) -> pa.Table:
    whole_numbers = file.whole_number_ids
    conversions = {
        "user": (file.user, lambda column: to_ids(column, whole_numbers=whole_numbers)),
        "item": (file.item, lambda column: to_ids(column, whole_numbers=whole_numbers)),
        "rating": (file.rating, to_ratings),
        "timestamp": (file.time, to_times),
    }
    absent = {"rating": pa.float32(), "timestamp": pa.int64()}
    columns = {"row": pa.array(rows, pa.int64())}
    for name, (source, convert) in conversions.items():
        if source is None:
            columns[name] = pa.nulls(table.num_rows, absent[name])
            continue
        try:
            columns[name] = convert(_one_array(table[source]))
        except BadValueError as bad:
            raise _LocatedError(source, bad) from None
    return pa.table(columns)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return array.chunk(0) if isinstance(array, pa.ChunkedArray) else array


def _parse(file: EventFile, chunk: Chunk, raw: bytes) -> pa.Table:
    """Columns of a text chunk: numbers where all are, else text for `_typed` to judge."""
    ids = pa.int64() if file.whole_number_ids else pa.string()
    wanted = {file.user: ids, file.item: ids, file.rating: pa.float64(), file.time: pa.int64()}
    types = {name: kind for name, kind in wanted.items() if name is not None}
    try:
        return _parse_as(file, chunk, raw, types)
    except pa.ArrowInvalid:
        return _parse_as(file, chunk, raw, dict.fromkeys(types, pa.string()))


def _parse_as(file: EventFile, chunk: Chunk, raw: bytes, types: dict[str, pa.DataType]) -> pa.Table:
    malformed: list[pacsv.InvalidRow] = []

    def keep_first_malformed(row: pacsv.InvalidRow) -> str:
        malformed.append(row)
        return "skip"

    try:
        table = pacsv.read_csv(
            io.BytesIO(raw),
            read_options=pacsv.ReadOptions(
                column_names=list(file.names), use_threads=False, block_size=len(raw) + 1
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=file.delimiter, invalid_row_handler=keep_first_malformed
            ),
            convert_options=pacsv.ConvertOptions(
                include_columns=file.columns,
                column_types=types,
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        if pa.string() in types.values() and len(set(types.values())) == 1:
            raise UserError(
                f"{file.path}: rows from {chunk.first_row} on cannot be read: "
                f"{str(error).splitlines()[0]}"
            ) from error
        raise
    if malformed:
        row = malformed[0]
        rows = _row_numbers(raw, chunk.first_row, table.num_rows + len(malformed))
        raise UserError(
            f"{file.path}: row {rows[row.number - 1]} has {row.actual_columns} fields where "
            f"{row.expected_columns} are expected: {row.text[:80]!r}"
        )
    return table


def _row_numbers(raw: bytes, first_row: int, n_rows: int) -> np.ndarray:
    """Line numbers of the rows of a text chunk; lines that are empty make no row."""
    lines = raw.count(b"\n") + (not raw.endswith(b"\n"))
    if lines == n_rows:
        return np.arange(first_row, first_row + n_rows)
    filled = [index for index, line in enumerate(raw.split(b"\n")) if line.strip(b"\r")]
    return np.asarray(filled[:n_rows]) + first_row


def _line_ends_near(path: Path, chunk_bytes: int, digest: "hashlib._Hash") -> list[tuple[int, int]]:
    """Where chunks may end: (offset after a line end, lines before it), about chunk_bytes apart.

    The last pair is the end of the file.
    """
    ends, offset, lines, wanted = [], 0, 0, chunk_bytes
    with path.open("rb") as stream:
        while block := stream.read(SCAN_BYTES):
            digest.update(block)
            counted = 0
            while (at := block.find(b"\n", max(wanted - offset - 1, 0))) >= 0:
                lines += block.count(b"\n", counted, at + 1)
                counted = at + 1
                ends.append((offset + counted, lines))
                wanted = offset + counted + chunk_bytes
            lines += block.count(b"\n", counted)
            offset += len(block)
    if not ends or ends[-1][0] < offset:
        ends.append((offset, lines))
    return ends


def _text_chunks(file: EventFile, line_ends: list[tuple[int, int]]) -> list[Chunk]:
    start, first_row = 0, 1
    if file.has_header:
        with file.path.open("rb") as stream:
            start, first_row = len(stream.readline()), 2
    chunks: list[Chunk] = []
    for end, lines_before in line_ends:
        if end > start:
            chunks.append(Chunk(len(chunks), start, end, first_row))
        start, first_row = max(start, end), lines_before + 1
    return chunks
