"""The table of items: ids, titles, genres, years and whatever else the input says about them."""

import re
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from training.data.columns import BadValueError, require_columns, to_ids, whole_number_texts
from training.data.sources import CatalogueFile, delimited_header, is_parquet
from training.errors import UserError

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
SYNONYMS = {
    "title": ("title", "name"),
    "genres": ("genres", "genre", "categories", "category"),
    "year": ("year", "release_year"),
}


def read_catalogue(file: CatalogueFile) -> pa.Table:
    """Columns item_id, title, name, genres, year and any others of the file; one row per item.

    item_id is int64 or string. `name` is the title as one would say it: "The Matrix" for the
    title "Matrix, The (1999)". UserError for rows that are malformed or ids that repeat.
    """
    readers = {
        "movies.csv": _movies_csv,
        "movies.dat": _movies_dat,
        "u.item": _u_item,
        "columns": _any_columns,
    }
    table = readers[file.shape](file)
    ids = table["item_id"].combine_chunks()
    if ids.null_count:
        row = pc.index(ids.is_null(), True).as_py()
        raise UserError(f"{file.path}: item {row + 1} has no id")
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        raise UserError(
            f"{file.path}: item {repeated[0]['values'].as_py()} is described more than once"
        )
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


def split_genres(text: str | None) -> list[str]:
    """Genres of a text such as "Action|Comedy"."""
    return [genre for genre in (text or "").split("|") if genre not in NO_GENRES]


def _table(
    ids: pa.Array,
    titles: Iterable[str],
    genres: Iterable[list[str]],
    years: Iterable[int | None] | None = None,
) -> pa.Table:
    titles = list(titles)
    if years is None:
        years = map(title_year, titles)
    return pa.table(
        {
            "item_id": ids,
            "title": pa.array(titles, pa.string()),
            "name": pa.array(map(spoken_name, titles), pa.string()),
            "genres": pa.array(genres, pa.list_(pa.string())),
            "year": pa.array(years, pa.int32()),
        }
    )


def _movies_csv(file: CatalogueFile) -> pa.Table:
    table = _read_text_columns(file.path)
    require_columns(("movieId", "title", "genres"), table.column_names, file.path)
    ids = _ids(table["movieId"], file.path, "movieId", first_row=2, whole_numbers=True)
    titles = pc.fill_null(table["title"], "").to_pylist()
    return _table(ids, titles, map(split_genres, table["genres"].to_pylist()))


def _movies_dat(file: CatalogueFile) -> pa.Table:
    rows = [line.split("::") for line in _lines(file.path)]
    _require_fields(rows, 3, file.path)
    ids = _ids(pa.array([row[0] for row in rows]), file.path, "movieId", 1, whole_numbers=True)
    titles = ("::".join(row[1:-1]) for row in rows)  # a title may hold the separator itself
    return _table(ids, titles, (split_genres(row[-1]) for row in rows))


def _u_item(file: CatalogueFile) -> pa.Table:
    rows = [line.split("|") for line in _lines(file.path)]
    names = HUNDRED_K_GENRES
    genre_file = file.path.with_name("u.genre")
    if genre_file.is_file():
        names = [line.split("|")[0] for line in _lines(genre_file)]
    first_flag = 5
    _require_fields(rows, first_flag + len(names), file.path)
    ids = _ids(pa.array([row[0] for row in rows]), file.path, "movie id", 1, whole_numbers=True)
    genres = (
        [
            name
            for name, flag in zip(names, row[first_flag:], strict=False)
            if flag == "1" and name not in NO_GENRES
        ]
        for row in rows
    )
    return _table(ids, (row[1] for row in rows), genres)


def _any_columns(file: CatalogueFile) -> pa.Table:
    """A csv or Parquet catalogue; the id column has the same name as in the events."""
    is_text = not is_parquet(file.path)
    table = _read_text_columns(file.path) if is_text else pq.read_table(file.path)
    require_columns((file.item,), table.column_names, file.path)
    column = {word: _synonym(table, word) for word in SYNONYMS}
    first_row = 2 if is_text else 1
    ids = _ids(table[file.item], file.path, file.item, first_row, whole_numbers=False)
    if is_text:
        as_numbers = whole_number_texts(ids)
        ids = ids if as_numbers is None else as_numbers
    known = _table(
        ids,
        _titles(table, column["title"], ids),
        _genre_lists(table, column["genres"]),
        _years(table, column["year"], file.path, first_row),
    )
    used = {file.item, *column.values(), *known.column_names}
    for name in table.column_names:
        if name not in used:
            known = known.append_column(name, table[name])
    return known


def _synonym(table: pa.Table, word: str) -> str | None:
    by_lower = {name.lower(): name for name in reversed(table.column_names)}
    return next((by_lower[word] for word in SYNONYMS[word] if word in by_lower), None)


def _titles(table: pa.Table, column: str | None, ids: pa.Array) -> list[str]:
    as_text = ids.cast(pa.string())
    if column is None:
        return as_text.to_pylist()
    return pc.coalesce(table[column].combine_chunks().cast(pa.string()), as_text).to_pylist()


def _genre_lists(table: pa.Table, column: str | None) -> list[list[str]]:
    if column is None:
        return [[] for _ in range(table.num_rows)]
    return [
        split_genres(value) if isinstance(value, str) else [str(genre) for genre in value or ()]
        for value in table[column].to_pylist()
    ]


def _years(
    table: pa.Table, column: str | None, path: Path, first_row: int
) -> list[int | None] | None:
    if column is None:
        return None
    years = table[column].combine_chunks()
    return _ids(years, path, column, first_row, whole_numbers=True).to_pylist()


def _ids(
    column: pa.Array | pa.ChunkedArray,
    path: Path,
    name: str,
    first_row: int,
    *,
    whole_numbers: bool,
) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    try:
        return to_ids(column, whole_numbers=whole_numbers)
    except BadValueError as bad:
        raise UserError(
            f"{path}: row {first_row + bad.position}, column {name!r}: "
            f"{bad.value!r} is not {bad.expected}"
        ) from None


def _read_text_columns(path: Path) -> pa.Table:
    """A csv with a header, every column as text; empty fields are null."""
    names, delimiter = delimited_header(path)
    try:
        return pacsv.read_csv(
            path,
            parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def _lines(path: Path) -> list[str]:
    """Lines of an old MovieLens file: UTF-8 in 10M, ISO 8859-1 in 100K and 1M."""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]


def _require_fields(rows: list[list[str]], least: int, path: Path) -> None:
    for number, row in enumerate(rows, start=1):
        if len(row) < least:
            raise UserError(
                f"{path}: row {number} has {len(row)} fields where {least} are expected"
            )
