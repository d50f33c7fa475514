"""Which files an input is made of and where their columns are.

The published MovieLens shapes are known by their file names (movielens.py); anything else is
described by column names, on the command line or in a dataset.yaml (mapping.py).
"""

import csv
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from training.data.columns import require_columns
from training.data.locations import (
    file_size,
    is_directory,
    list_files,
    open_file,
    open_stream,
    reason,
)
from training.errors import UserError
from training.model.manifest import VERB

DELIMITERS = ",\t;|"
PARQUET_MAGIC = b"PAR1"
GZIP_MAGIC = b"\x1f\x8b"
HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class Columns:
    """Names of the columns that make an event."""

    user: str
    item: str
    rating: str | None = None
    time: str | None = None

    @property
    def present(self) -> list[str]:
        return [name for name in (self.user, self.item, self.rating, self.time) if name]


@dataclass(frozen=True)
class EventFile:
    """One file of events and where its columns are."""

    path: str  # a path or an s3:// address
    columns: Columns
    whole_number_ids: bool  # ids must be whole numbers; else they may be any text
    names: tuple[str, ...] = ()  # all columns of a delimited file, in order
    delimiter: str | None = None  # None: Parquet
    has_header: bool = True
    compression: str | None = None  # "gzip", of delimited text only


@dataclass(frozen=True)
class CatalogueFile:
    """What describes the items. `shape` chooses its reader in catalogue.py.

    fields: which columns are the title, the categories and the year, where the file does not
        call them so.
    lists: text columns that hold several values, and what parts the values.
    """

    path: str
    shape: str  # "columns", or a MovieLens file's name
    item: str  # name of the id column, for "columns"
    fields: tuple[tuple[str, str], ...] = ()
    lists: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Source:
    """Everything that `prepare` reads."""

    shape: str  # in words, for people
    entity: str  # what an item is called: "item", "song", ...
    events: tuple[EventFile, ...]
    catalogue: CatalogueFile | None
    rating_range: tuple[float, float] | None
    log_position: str | None = None  # how far an event log was read (event_log.py)
    # Erased users and until when, unix seconds: what they did up to then is left out.
    erased: tuple[tuple[str, int], ...] = ()
    erasures: str | None = None  # the event id of the newest erasure that is respected
    verb: str = VERB  # what a user has done with an item: "watched", "played", ...

    @property
    def has_time(self) -> bool:
        return self.events[0].columns.time is not None


def generic(
    path: str,
    *,
    user: str,
    item: str,
    rating: str | None = None,
    time: str | None = None,
    catalogue: CatalogueFile | None = None,
    rating_range: tuple[float, float] | None = None,
    entity: str = "item",
    verb: str = VERB,
) -> Source:
    """Any csv or Parquet file of events, plain or gzipped, or a directory of such files."""
    path = str(path)
    columns = Columns(user, item, rating, time)
    named = columns.present
    repeated = next((name for name in named if named.count(name) > 1), None)
    if repeated is not None:
        raise UserError(f"{path}: column {repeated!r} is named for two things: name two columns")
    if file_size(path) is not None:
        paths = [path]
    elif is_directory(path):
        paths = list_files(path)
        if not paths:
            raise UserError(f"{path} holds no files: name a directory with csv or Parquet files")
    else:
        raise UserError(f"{path} does not exist: name a csv or Parquet file of events")
    files = tuple(event_file(each, columns) for each in paths)
    if catalogue is not None and file_size(catalogue.path) is None:
        raise UserError(f"{catalogue.path} does not exist: --items names a csv or Parquet file")
    shape = "parquet" if files[0].delimiter is None else "csv"
    return Source(shape, entity, files, catalogue, rating_range, verb=verb)


def event_file(path: str, columns: Columns) -> EventFile:
    """A csv or Parquet file, by its first bytes; UserError when it lacks a column."""
    kind = kind_of(path)
    if kind == "parquet":
        require_columns(columns.present, parquet_names(path), path)
        return EventFile(path, columns, whole_number_ids=False)
    names, delimiter = delimited_header(path)
    require_columns(columns.present, names, path)
    return EventFile(
        path,
        columns,
        whole_number_ids=False,
        names=tuple(names),
        delimiter=delimiter,
        compression="gzip" if kind == "gzip" else None,
    )


def kind_of(path: str) -> str:
    """ "parquet", "gzip" (of text) or "text"."""
    with open_file(path) as file:
        magic = file.read(len(PARQUET_MAGIC))
    if magic == PARQUET_MAGIC:
        return "parquet"
    return "gzip" if magic[:2] == GZIP_MAGIC else "text"


def header_line(path: str, compression: str | None = None) -> bytes:
    """The first line, with what ends it."""
    head = b""
    try:
        with open_stream(path, compression) as stream:
            while b"\n" not in head and len(head) < HEADER_BYTES:
                block = stream.read(4096)
                if not block:
                    break
                head += block
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error
    return head[: head.find(b"\n") + 1] or head


def delimited_header(path: str) -> tuple[list[str], str]:
    """Column names of a delimited text file with a header line, and its delimiter."""
    path = str(path)
    if file_size(path) == 0:
        raise UserError(f"{path} is empty: a header line and events are needed")
    try:
        raw = header_line(path, "gzip" if kind_of(path) == "gzip" else None)
        line = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason}") from error
    if not line.strip():
        raise UserError(f"{path} is empty: a header line and events are needed")
    if "\r" in line.rstrip("\r\n"):
        raise UserError(f"{path} ends its lines with CR alone: convert them to LF or CRLF")
    delimiter = max(DELIMITERS, key=line.count)
    names = next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter))
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise UserError(f"{path} has more than one column {repeated!r}: rename one")
    return names, delimiter


def parquet_names(path: str) -> list[str]:
    try:
        with open_file(path) as file:
            return list(pq.read_schema(file).names)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable Parquet file: {reason(error)}") from error
