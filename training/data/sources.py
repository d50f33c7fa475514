"""Which files an input is made of: the MovieLens shapes, or any csv or Parquet of events.

| Found in the directory                     | Data set                            |
|--------------------------------------------|-------------------------------------|
| ratings.csv (movies.csv)                   | latest-small, latest, 20M, 25M, 32M |
| ratings.dat (movies.dat)                   | 1M, 10M                             |
| interactions.parquet with movies.dat       | 1M as one Parquet file              |
| u.data (u.item, u.genre)                   | 100K                                |
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from training.data.columns import require_columns
from training.errors import UserError

MOVIELENS_RATINGS = (0.5, 5.0)
MOVIELENS_COLUMNS = ("userId", "movieId", "rating", "timestamp")
DELIMITERS = ",\t;|"
PARQUET_MAGIC = b"PAR1"


@dataclass(frozen=True)
class EventFile:
    """One file of events and where its columns are."""

    path: Path
    user: str
    item: str
    rating: str | None
    time: str | None
    whole_number_ids: bool  # ids must be whole numbers; else they may be any text
    names: tuple[str, ...] = ()  # all columns of a delimited file, in order
    delimiter: str | None = None  # None: Parquet
    has_header: bool = True

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        return [name for name in (self.user, self.item, self.rating, self.time) if name]


@dataclass(frozen=True)
class CatalogueFile:
    """The file that describes the items. `shape` chooses its reader in catalogue.py."""

    path: Path
    shape: str  # "movies.csv", "movies.dat", "u.item" or "columns"
    item: str  # name of the id column, for "columns"


@dataclass(frozen=True)
class Source:
    """Everything that `prepare` reads."""

    shape: str  # in words, for people
    entity: str  # "movie" or "item"
    events: EventFile
    catalogue: CatalogueFile | None
    rating_range: tuple[float, float] | None


def detect(directory: Path) -> Source:
    """The MovieLens data set in `directory`; UserError when there is none."""
    if not directory.is_dir():
        raise UserError(f"{directory} does not exist: name a directory that holds a data set")
    for name, read in (
        ("ratings.csv", _csv_family),
        ("ratings.dat", _dat_family),
        ("interactions.parquet", _parquet_copy),
        ("u.data", _hundred_k),
    ):
        if (directory / name).is_file():
            return read(directory / name)
    found = ", ".join(sorted(path.name for path in directory.iterdir())[:8]) or "nothing"
    raise UserError(
        f"{directory} holds no MovieLens data set (no ratings.csv, ratings.dat, "
        f"interactions.parquet or u.data; found: {found}): "
        f"name the file with --events FILE --user COL --item COL"
    )


def generic(
    path: Path,
    *,
    user: str,
    item: str,
    rating: str | None = None,
    time: str | None = None,
    items: Path | None = None,
    rating_range: tuple[float, float] | None = None,
) -> Source:
    """Any csv or Parquet file of events, with the names of its columns."""
    wanted = [name for name in (user, item, rating, time) if name]
    names, delimiter = _columns_of(path)
    require_columns(wanted, names, path)
    if items is not None and not items.is_file():
        raise UserError(f"{items} does not exist: --items names a csv or Parquet file")
    return Source(
        shape="parquet" if delimiter is None else "csv",
        entity="item",
        events=EventFile(
            path=path,
            user=user,
            item=item,
            rating=rating,
            time=time,
            whole_number_ids=False,
            names=tuple(names),
            delimiter=delimiter,
        ),
        catalogue=CatalogueFile(items, "columns", item) if items else None,
        rating_range=rating_range,
    )


def delimited_header(path: Path) -> tuple[list[str], str]:
    """Column names of a delimited text file with a header line, and its delimiter."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline(1 << 20)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason}") from error
    if not line.strip():
        raise UserError(f"{path} is empty: a header line and events are needed")
    delimiter = max(DELIMITERS, key=line.count)
    return next(csv.reader([line], delimiter=delimiter)), delimiter


def is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC


def parquet_names(path: Path) -> list[str]:
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable Parquet file: {error}") from error


def _columns_of(path: Path) -> tuple[list[str], str | None]:
    if not path.is_file():
        raise UserError(f"{path} does not exist: name a csv or Parquet file of events")
    if is_parquet(path):
        return parquet_names(path), None
    return delimited_header(path)


def _csv_family(path: Path) -> Source:
    names, delimiter = delimited_header(path)
    require_columns(MOVIELENS_COLUMNS, names, path)
    events = _movielens_events(path, names=tuple(names), delimiter=delimiter)
    return _movielens("MovieLens csv", events, "movies.csv")


def _dat_family(path: Path) -> Source:
    # Fields are parted by "::". Read as ":", every second column is empty and is skipped.
    names = ("userId", "", "movieId", "", "rating", "", "timestamp")
    events = _movielens_events(path, names=names, delimiter=":", has_header=False)
    return _movielens("MovieLens .dat", events, "movies.dat")


def _hundred_k(path: Path) -> Source:
    events = _movielens_events(path, names=MOVIELENS_COLUMNS, delimiter="\t", has_header=False)
    return _movielens("MovieLens 100K", events, "u.item")


def _parquet_copy(path: Path) -> Source:
    names = parquet_names(path)
    require_columns(MOVIELENS_COLUMNS, names, path)
    return _movielens("MovieLens 1M parquet", _movielens_events(path), "movies.dat")


def _movielens_events(
    path: Path,
    *,
    names: tuple[str, ...] = (),
    delimiter: str | None = None,
    has_header: bool = True,
) -> EventFile:
    user, item, rating, time = MOVIELENS_COLUMNS
    return EventFile(path, user, item, rating, time, True, names, delimiter, has_header)


def _movielens(shape: str, events: EventFile, catalogue: str) -> Source:
    path = events.path.with_name(catalogue)
    return Source(
        shape=shape,
        entity="movie",
        events=events,
        catalogue=CatalogueFile(path, catalogue, events.item) if path.is_file() else None,
        rating_range=MOVIELENS_RATINGS,
    )
