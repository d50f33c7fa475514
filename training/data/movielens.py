"""The published MovieLens shapes, by the names of their files.

| Found in the directory                     | Data set                            |
|--------------------------------------------|-------------------------------------|
| ratings.csv (movies.csv)                   | latest-small, latest, 20M, 25M, 32M |
| ratings.dat (movies.dat)                   | 1M, 10M                             |
| interactions.parquet with movies.dat       | 1M as one Parquet file              |
| u.data (u.item, u.genre)                   | 100K                                |

Each may be gzipped. Tags (tags.csv, tags.dat) and the tag genome (genome-scores.csv with
genome-tags.csv) become the items' columns `tags` (most used first) and `genome` (a vector).
"""

import io
import re
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from training.data.columns import require_columns
from training.data.locations import file_size, is_directory, join, list_files, read_bytes
from training.data.sources import (
    CatalogueFile,
    Columns,
    EventFile,
    Source,
    delimited_header,
    parquet_names,
)
from training.data.tables import read_ids, read_text_columns, vector_column
from training.errors import UserError

RATINGS = (0.5, 5.0)
COLUMNS = Columns("userId", "movieId", "rating", "timestamp")
# Fields are parted by "::". Read as ":", every second column is empty and is skipped.
DAT_NAMES = ("userId", "", "movieId", "", "rating", "", "timestamp")
TAGS_KEPT = 20

YEAR = re.compile(r"\s*\((\d{4})(?:\s*[-–]\s*(?:\d{4})?)?\)\s*$")
TRAILING_ARTICLE = re.compile(
    r"^(?P<rest>[^(]+?), (?P<article>The|An?|Les?|La|L'|Der|Die|Das|El|Los|Las|Il|Lo|I)"
    r"(?P<more>\s*\(.*)?$"
)
NO_GENRES = frozenset({"", "(no genres listed)", "unknown"})
# The flags that end a line of u.item, where u.genre is not at hand to name them.
HUNDRED_K_GENRES = (  # noqa: SIM905 (a literal would take a line for each word)
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy "
    "Film-Noir Horror Musical Mystery Romance Sci-Fi Thriller War Western"
).split()


def detect(directory: str) -> Source:
    """The MovieLens data set in `directory`; UserError when there is none."""
    directory = str(directory)
    if not is_directory(directory):
        raise UserError(f"{directory} does not exist: name a directory that holds a data set")
    for name, read in (
        ("ratings.csv", _csv_family),
        ("ratings.dat", _dat_family),
        ("interactions.parquet", _parquet_copy),
        ("u.data", _hundred_k),
    ):
        path = _either(directory, name)
        if path is not None:
            return read(directory, path)
    names = [path.rsplit("/", 1)[-1] for path in list_files(directory)]
    raise UserError(
        f"{directory} holds no MovieLens data set (no ratings.csv, ratings.dat, "
        f"interactions.parquet or u.data; found: {', '.join(names[:8]) or 'nothing'}): "
        f"name the columns with --user COL --item COL, or write a dataset.yaml"
    )


def _either(directory: str, name: str) -> str | None:
    """The file of that name, or its gzipped form."""
    paths = (join(directory, name), join(directory, f"{name}.gz"))
    return next((path for path in paths if file_size(path) is not None), None)


def read_movies(file: CatalogueFile) -> pa.Table:
    """item_id int64, title, name, genres, year, and tags and genome where the files are there.

    `name` is the title as one would say it: "The Matrix" for the title "Matrix, The (1999)".
    """
    table = READERS[file.shape](file)
    directory = file.path.rsplit("/", 1)[0]
    for column, read in (("tags", _tags), ("genome", _genome)):
        values = read(directory, table["item_id"].to_numpy())
        if values is not None:
            table = table.append_column(column, values)
    return table


def title_year(title: str) -> int | None:
    """The release year in the parentheses that end a MovieLens title."""
    match = YEAR.search(title)
    return int(match[1]) if match else None


def spoken_name(title: str) -> str:
    """The title without its year and with its article in front."""
    name = YEAR.sub("", title).strip()
    match = TRAILING_ARTICLE.match(name)
    if match is None:
        return name or title
    article = match["article"] if match["article"].endswith("'") else match["article"] + " "
    return f"{article}{match['rest']}{match['more'] or ''}"


def _csv_family(directory: str, path: str) -> Source:
    names, delimiter = delimited_header(path)
    require_columns(COLUMNS.present, names, path)
    events = _events(path, tuple(names), delimiter, has_header=True)
    return _source("MovieLens csv", events, directory, "movies.csv")


def _dat_family(directory: str, path: str) -> Source:
    return _source("MovieLens .dat", _events(path, DAT_NAMES, ":"), directory, "movies.dat")


def _hundred_k(directory: str, path: str) -> Source:
    events = _events(path, tuple(COLUMNS.present), "\t")
    return _source("MovieLens 100K", events, directory, "u.item")


def _parquet_copy(directory: str, path: str) -> Source:
    require_columns(COLUMNS.present, parquet_names(path), path)
    events = _events(path, (), None)
    return _source("MovieLens 1M parquet", events, directory, "movies.dat")


def _events(
    path: str, names: tuple[str, ...], delimiter: str | None, *, has_header: bool = False
) -> EventFile:
    compression = "gzip" if path.endswith(".gz") else None
    return EventFile(path, COLUMNS, True, names, delimiter, has_header, compression)


def _source(shape: str, events: EventFile, directory: str, catalogue: str) -> Source:
    found = _either(directory, catalogue)
    return Source(
        shape=shape,
        entity="movie",
        events=(events,),
        catalogue=CatalogueFile(found, catalogue, COLUMNS.item) if found else None,
        rating_range=RATINGS,
        verb="watched",
    )


def _movies_csv(file: CatalogueFile) -> pa.Table:
    table = read_text_columns(file.path)
    require_columns(("movieId", "title", "genres"), table.column_names, file.path)
    ids = read_ids(table["movieId"], file.path, "movieId", first_row=2, whole_numbers=True)
    titles = pc.fill_null(table["title"], "").to_pylist()
    return _table(ids, titles, map(_split_genres, table["genres"].to_pylist()))


def _movies_dat(file: CatalogueFile) -> pa.Table:
    rows = [line.split("::") for line in _lines(file.path)]
    _require_fields(rows, 3, file.path)
    texts = pa.array([row[0] for row in rows])
    ids = read_ids(texts, file.path, "movieId", 1, whole_numbers=True)
    titles = ("::".join(row[1:-1]) for row in rows)  # a title may hold the separator itself
    return _table(ids, titles, (_split_genres(row[-1]) for row in rows))


def _u_item(file: CatalogueFile) -> pa.Table:
    rows = [line.split("|") for line in _lines(file.path)]
    names = HUNDRED_K_GENRES
    genre_file = join(file.path.rsplit("/", 1)[0], "u.genre")
    if file_size(genre_file) is not None:
        names = [line.split("|")[0] for line in _lines(genre_file)]
    first_flag = 5
    _require_fields(rows, first_flag + len(names), file.path)
    texts = pa.array([row[0] for row in rows])
    ids = read_ids(texts, file.path, "movie id", 1, whole_numbers=True)
    genres = (
        [
            name
            for name, flag in zip(names, row[first_flag:], strict=False)
            if flag == "1" and name not in NO_GENRES
        ]
        for row in rows
    )
    return _table(ids, (row[1] for row in rows), genres)


READERS: dict[str, Callable[[CatalogueFile], pa.Table]] = {
    "movies.csv": _movies_csv,
    "movies.dat": _movies_dat,
    "u.item": _u_item,
}


def _tags(directory: str, movies: np.ndarray) -> pa.Array | None:
    """The TAGS_KEPT most used tags of each item in lower case, list<string> [I]."""
    if (path := _either(directory, "tags.csv")) is not None:
        table = read_text_columns(path)
        require_columns(("movieId", "tag"), table.column_names, path)
        ids = read_ids(table["movieId"], path, "movieId", first_row=2, whole_numbers=True)
        texts = table["tag"]
    elif (path := _either(directory, "tags.dat")) is not None:
        rows = [line.split("::") for line in _lines(path)]
        _require_fields(rows, 4, path)
        numbers = pa.array([row[1] for row in rows])
        ids = read_ids(numbers, path, "movieId", 1, whole_numbers=True)
        texts = pa.chunked_array([pa.array(["::".join(row[2:-1]) for row in rows], pa.string())])
    else:
        return None
    tags = pa.table({"id": ids, "tag": pc.utf8_lower(pc.utf8_trim_whitespace(texts))})
    tags = tags.filter(pc.fill_null(pc.not_equal(tags["tag"], ""), False))
    counts = tags.group_by(["id", "tag"]).aggregate([([], "count_all")])
    counts = counts.sort_by(
        [("id", "ascending"), ("count_all", "descending"), ("tag", "ascending")]
    )
    by_id: dict[int, list[str]] = {}
    for item, tag in zip(counts["id"].to_pylist(), counts["tag"].to_pylist(), strict=True):
        kept = by_id.setdefault(item, [])
        if len(kept) < TAGS_KEPT:
            kept.append(tag)
    return pa.array([by_id.get(item, []) for item in movies.tolist()], pa.list_(pa.string()))


def _genome(directory: str, movies: np.ndarray) -> pa.Array | None:
    """Each item's relevance of every tag of the genome, a vector; null where it has none."""
    path = _either(directory, "genome-scores.csv")
    if path is None:
        return None
    require_columns(("movieId", "tagId", "relevance"), delimited_header(path)[0], path)
    try:
        scores = pacsv.read_csv(io.BytesIO(read_bytes(path)))
        movie, tag = scores["movieId"].to_numpy(), scores["tagId"].to_numpy()
        relevance = scores["relevance"].to_numpy().astype(np.float32)
    except (pa.ArrowInvalid, ValueError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    tags, column = np.unique(tag, return_inverse=True)
    order = np.argsort(movies)
    place = np.minimum(np.searchsorted(movies, movie, sorter=order), len(movies) - 1)
    row = order[place]
    known = movies[row] == movie
    matrix = np.zeros((len(movies), len(tags)), dtype=np.float32)
    matrix[row[known], column[known]] = relevance[known]
    without = ~np.isin(np.arange(len(movies)), row[known])
    return vector_column(matrix, without)


def _table(ids: pa.Array, titles: Iterable[str], genres: Iterable[list[str]]) -> pa.Table:
    titles = list(titles)
    return pa.table(
        {
            "item_id": ids,
            "title": pa.array(titles, pa.string()),
            "name": pa.array(map(spoken_name, titles), pa.string()),
            "genres": pa.array(genres, pa.list_(pa.string())),
            "year": pa.array(map(title_year, titles), pa.int32()),
        }
    )


def _split_genres(text: str | None) -> list[str]:
    return [genre for genre in (text or "").split("|") if genre not in NO_GENRES]


def _lines(path: str) -> list[str]:
    """Lines of an old MovieLens file: UTF-8 in 10M, ISO 8859-1 in 100K and 1M."""
    raw = read_bytes(path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]


def _require_fields(rows: list[list[str]], least: int, path: str) -> None:
    for number, row in enumerate(rows, start=1):
        if len(row) < least:
            raise UserError(
                f"{path}: row {number} has {len(row)} fields where {least} are expected"
            )
