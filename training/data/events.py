"""Reading files of events in chunks, each with its row numbers, and rejecting bad rows.

A csv of 25 million ratings is one file, which Ray Data would read with one task: `plan_chunks`
cuts text by bytes and Parquet by row groups, without reading them, so that every chunk can be
read by another worker. A gzipped file cannot be cut and is one chunk, decompressed as a stream.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from training.data.columns import BadValueError, to_ids, to_ratings, to_times, whole_number_texts
from training.data.locations import file_size, open_file, open_stream, reason
from training.data.sources import EventFile, header_line
from training.errors import UserError

CHUNK_BYTES = 16 * 2**20
PARQUET_ROWS = 2**19  # of a row group, taken at once
TAIL_BYTES = 2**16  # read at a time for the end of a chunk's last line
GZIP_RATIO = 6  # of decompressed to compressed bytes, to guess a number of events
SAMPLE_BYTES = 2**18

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
    """A part of a file: the lines that begin in bytes [start, end), or row group `start`."""

    index: int
    file: int  # index into the source's files
    start: int
    end: int


@dataclass(frozen=True)
class Piece:
    """What is read of a chunk at once.

    events: columns row int32 (counted from the chunk's first line or row), user and item (int64
        or string), rating float32, timestamp int64 (unix seconds); what the file lacks is null.
    lines: lines or rows of the piece, empty lines counted.
    """

    events: pa.Table
    lines: int


@dataclass(frozen=True)
class Limits:
    """What a valid event may hold. `now` is in unix seconds."""

    rating_range: tuple[float, float] | None
    now: int


class EventError(Exception):
    """A row that makes no sense, counted from its chunk's first; `text` follows "row N"."""

    def __init__(self, row: int, text: str) -> None:
        super().__init__(row, text)
        self.row, self.text = row, text


def plan_chunks(files: tuple[EventFile, ...], chunk_bytes: int = CHUNK_BYTES) -> list[Chunk]:
    """The chunks of all files in order; UserError when they hold no events."""
    chunks: list[Chunk] = []
    for index, file in enumerate(files):
        for start, end in _ranges(file, chunk_bytes):
            chunks.append(Chunk(len(chunks), index, start, end))
    if not chunks:
        raise UserError(f"{files[0].path} holds no events")
    return chunks


def first_row(file: EventFile) -> int:
    """The number of a file's first event: in text that of its line, from 1."""
    return 2 if file.delimiter is not None and file.has_header else 1


def guess_events(files: tuple[EventFile, ...]) -> int:
    """About how many events the files hold, from their sizes and a look at the first lines."""
    total = 0.0
    for file in files:
        if file.delimiter is None:
            total += _parquet(file).metadata.num_rows
            continue
        try:
            with open_stream(file.path, file.compression) as stream:
                sample = stream.read(SAMPLE_BYTES)
        except OSError as error:
            raise _unreadable(file, error) from error
        size = (file_size(file.path) or 0) * (GZIP_RATIO if file.compression else 1)
        if len(sample) < SAMPLE_BYTES:
            size = len(sample)
        total += size * sample.count(b"\n") / max(len(sample), 1)
    return max(int(total), 1)


def read_chunk(file: EventFile, chunk: Chunk, digest: "hashlib._Hash") -> Iterator[Piece]:
    """The pieces of a chunk; its bytes are added to `digest`.

    EventError names the row where text stands for a number or a row has too many or too few
    fields; UserError a file that cannot be read.
    """
    try:
        if file.delimiter is None:
            yield from _read_parquet(file, chunk, digest)
            return
        texts = _stream_texts(file, chunk) if file.compression else _range_text(file, chunk)
        read = 0
        for raw in texts:
            digest.update(raw)
            lines = raw.count(b"\n") + (not raw.endswith(b"\n"))
            try:
                table = _parse(file, raw)
                events = _typed(file, table, _row_numbers(raw, lines, table.num_rows))
            except EventError as error:
                raise EventError(error.row + read, error.text) from None
            if read:
                shifted = pc.add(events["row"], pa.scalar(read, pa.int32()))
                events = events.set_column(0, "row", shifted)
            yield Piece(events, lines)
            read += lines
    except (OSError, EOFError, pa.ArrowException) as error:
        raise _unreadable(file, error) from error


def find_rejects(events: pa.Table, limits: Limits, *, has_time: bool) -> np.ndarray:
    """For each event the index into REASONS of its first fault, int8 [E], or VALID."""
    faults = _faults(events, limits, has_time)
    found = np.full(events.num_rows, VALID, dtype=np.int8)
    for name, mask in faults.items():
        found[mask & (found == VALID)] = REASONS.index(name)
    return found


def _unreadable(file: EventFile, error: Exception) -> UserError:
    damaged = " (is it cut off?)" if file.compression else ""
    return UserError(f"{file.path} cannot be read{damaged}: {reason(error)}")


def _faults(events: pa.Table, limits: Limits, has_time: bool) -> dict[str, np.ndarray]:
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
    if has_time:
        faults[NO_TIME] = _mask(time.is_null())
        faults[TIME_NEGATIVE] = _mask(pc.less(time, 0))
        faults[TIME_IN_FUTURE] = _mask(pc.greater(time, limits.now))
    return faults


def _mask(column: pa.ChunkedArray) -> np.ndarray:
    mask: np.ndarray = column.fill_null(False).to_numpy()
    return mask


def _ranges(file: EventFile, chunk_bytes: int) -> Iterable[tuple[int, int]]:
    size = file_size(file.path) or 0
    if file.delimiter is None:
        groups = _parquet(file).metadata
        return [
            (group, group + 1)
            for group in range(groups.num_row_groups)
            if groups.row_group(group).num_rows
        ]
    if file.compression:
        return [(0, size)] if size else []
    start = len(header_line(file.path)) if file.has_header else 0
    bounds = [*range(start, size, chunk_bytes), size]
    return zip(bounds[:-1], bounds[1:], strict=True)


def _parquet(file: EventFile) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(open_file(file.path))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file.path} is not a readable Parquet file: {reason(error)}") from error


def _read_parquet(file: EventFile, chunk: Chunk, digest: "hashlib._Hash") -> Iterator[Piece]:
    read = 0
    batches = _parquet(file).iter_batches(
        batch_size=PARQUET_ROWS, row_groups=[chunk.start], columns=file.columns.present
    )
    for batch in batches:
        table = pa.Table.from_batches([batch])
        rows = np.arange(read, read + len(batch), dtype=np.int32)
        events = _typed(file, table, rows)
        _digest_table(events, digest)
        yield Piece(events, len(batch))
        read += len(batch)


def _digest_table(events: pa.Table, digest: "hashlib._Hash") -> None:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, events.schema) as writer:
        writer.write_table(events)
    digest.update(sink.getbuffer())


def _range_text(file: EventFile, chunk: Chunk) -> Iterator[bytes]:
    """The lines that begin in the chunk's bytes; the last may reach beyond them."""
    header = len(header_line(file.path)) if file.has_header else 0
    with open_file(file.path) as stream:
        stream.seek(max(chunk.start - 1, 0))
        raw = stream.read(chunk.end - max(chunk.start - 1, 0))
        begin = 0
        if chunk.start > header:  # the byte before tells whether a line begins here
            begin = raw.find(b"\n") + 1 or len(raw)
        elif chunk.start > 0:
            begin = 1
        if begin >= len(raw):
            return
        tail = [raw[begin:]]
        while not tail[-1].endswith(b"\n"):
            block = stream.read(TAIL_BYTES)
            if not block:
                break
            end = block.find(b"\n") + 1
            tail.append(block[:end] if end else block)
    yield b"".join(tail)


def _stream_texts(file: EventFile, chunk: Chunk) -> Iterator[bytes]:
    """The lines of a compressed file, about CHUNK_BYTES at a time."""
    skip = len(header_line(file.path, file.compression)) if file.has_header else 0
    with open_stream(file.path, file.compression) as stream:
        stream.read(skip)
        rest = b""
        while block := stream.read(CHUNK_BYTES):
            end = block.rfind(b"\n") + 1
            if end:
                yield rest + block[:end]
                rest = block[end:]
            else:
                rest += block
        if rest:
            yield rest


def _typed(file: EventFile, table: pa.Table, rows: np.ndarray) -> pa.Table:
    columns = {"row": pa.array(rows, pa.int32())}
    for name in ("user", "item"):
        source = getattr(file.columns, name)
        columns[name] = _converted(table, source, rows, lambda column: _ids(file, column))
    for name, kind, convert in (
        ("rating", pa.float32(), to_ratings),
        ("timestamp", pa.int64(), to_times),
    ):
        source = file.columns.rating if name == "rating" else file.columns.time
        if source is None:
            columns[name] = pa.nulls(table.num_rows, kind)
        else:
            columns[name] = _converted(table, source, rows, convert)
    return pa.table(columns)


def _ids(file: EventFile, column: pa.Array) -> pa.Array:
    """Ids of text that are all plain whole numbers become numbers; `prepare` judges the whole."""
    ids = to_ids(column, whole_numbers=file.whole_number_ids)
    if file.delimiter is None or not pa.types.is_string(ids.type):
        return ids
    numbers = whole_number_texts(ids)
    return ids if numbers is None else numbers


def _converted(
    table: pa.Table, source: str, rows: np.ndarray, convert: Callable[[pa.Array], pa.Array]
) -> pa.Array:
    try:
        return convert(_one_array(table[source]))
    except BadValueError as bad:
        raise EventError(
            int(rows[bad.position]), f", column {source!r}: {bad.value!r} is not {bad.expected}"
        ) from None


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return array.chunk(0) if isinstance(array, pa.ChunkedArray) else array


def _parse(file: EventFile, raw: bytes) -> pa.Table:
    """Columns of text: numbers where all are, else text for `_typed` to judge."""
    ids = pa.int64() if file.whole_number_ids else pa.string()
    columns = file.columns
    wanted = {
        columns.user: ids,
        columns.item: ids,
        columns.rating: pa.float64(),
        columns.time: pa.int64(),
    }
    types = {name: kind for name, kind in wanted.items() if name is not None}
    try:
        return _parse_as(file, raw, types)
    except pa.ArrowInvalid:
        return _parse_as(file, raw, dict.fromkeys(types, pa.string()))


def _parse_as(file: EventFile, raw: bytes, types: dict[str, pa.DataType]) -> pa.Table:
    malformed: list[pacsv.InvalidRow] = []

    def keep_malformed(row: pacsv.InvalidRow) -> str:
        malformed.append(row)
        return "skip"

    try:
        table = pacsv.read_csv(
            io.BytesIO(raw),
            read_options=pacsv.ReadOptions(
                column_names=list(file.names), use_threads=False, block_size=len(raw) + 1
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=file.delimiter, invalid_row_handler=keep_malformed
            ),
            convert_options=pacsv.ConvertOptions(
                include_columns=file.columns.present,
                column_types=types,
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        if set(types.values()) == {pa.string()}:
            raise EventError(0, f" and those after it cannot be read: {reason(error)}") from error
        raise
    if malformed:
        row = malformed[0]
        lines = raw.count(b"\n") + (not raw.endswith(b"\n"))
        rows = _row_numbers(raw, lines, table.num_rows + len(malformed))
        raise EventError(
            int(rows[row.number - 1]),
            f" has {row.actual_columns} fields where {row.expected_columns} are expected: "
            f"{row.text[:80]!r}",
        )
    return table


def _row_numbers(raw: bytes, lines: int, n_rows: int) -> np.ndarray:
    """The line of each row of a text, from 0; lines that are empty make no row."""
    if lines == n_rows:
        return np.arange(n_rows, dtype=np.int32)
    filled = [index for index, line in enumerate(raw.split(b"\n")) if line.strip(b"\r")]
    return np.asarray(filled[:n_rows], dtype=np.int32)
