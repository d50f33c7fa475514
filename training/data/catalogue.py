"""The table of items: ids, titles, categories, years and whatever else the input says of them.

Further columns are kept with a type: numbers, texts, lists of texts, vectors of numbers. What the
item tower makes of them is said in training/inputs.py.
"""

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.data.columns import require_columns, whole_number_texts
from training.data.locations import open_file, reason
from training.data.movielens import READERS, read_movies
from training.data.sources import CatalogueFile, kind_of
from training.data.tables import read_ids, read_text_columns, vector_column
from training.errors import UserError

SYNONYMS = {
    "title": ("title", "name"),
    "genres": ("genres", "genre", "categories", "category"),
    "year": ("year", "release_year"),
}
SEPARATOR = "|"


def read_catalogue(file: CatalogueFile) -> pa.Table:
    """Columns item_id, title, name, genres, year and any others of the file; one row per item.

    item_id is int64 or string; `name` is the title as one would say it. UserError for rows that
    are malformed or ids that repeat.
    """
    table = read_movies(file) if file.shape in READERS else _any_columns(file)
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


def is_vector(kind: pa.DataType) -> bool:
    """Whether a column's values are lists of numbers."""
    is_list = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
    is_list = is_list or pa.types.is_large_list(kind)
    return bool(
        is_list and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))
    )


def _any_columns(file: CatalogueFile) -> pa.Table:
    is_text = kind_of(file.path) != "parquet"
    table = read_text_columns(file.path) if is_text else _read_parquet(file.path)
    require_columns((file.item,), table.column_names, file.path)
    fields = dict(file.fields)
    require_columns(fields.values(), table.column_names, file.path)
    column = {word: fields.get(word) or _synonym(table, word) for word in SYNONYMS}
    first_row = 2 if is_text else 1
    ids = read_ids(table[file.item], file.path, file.item, first_row, whole_numbers=False)
    if is_text:
        as_numbers = whole_number_texts(ids)
        ids = ids if as_numbers is None else as_numbers
    separators = dict(file.lists)
    require_columns(separators, table.column_names, file.path)
    titles = _titles(table, column["title"], ids)
    known = {
        "item_id": ids,
        "title": titles,
        "name": titles,
        "genres": _genre_lists(table, column["genres"], separators),
        "year": _years(table, column["year"], file.path, first_row),
    }
    used = {file.item, *column.values(), *known}
    for name in table.column_names:
        if name not in used:
            known[name] = _further(table[name], name, separators.get(name), is_text, file.path)
    return pa.table(known)


def _read_parquet(path: str) -> pa.Table:
    try:
        with open_file(path) as file:
            return pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable Parquet file: {reason(error)}") from error


def _synonym(table: pa.Table, word: str) -> str | None:
    by_lower = {name.lower(): name for name in reversed(table.column_names)}
    return next((by_lower[word] for word in SYNONYMS[word] if word in by_lower), None)


def _titles(table: pa.Table, column: str | None, ids: pa.Array) -> pa.Array:
    as_text = ids.cast(pa.string())
    if column is None:
        return as_text
    return pc.coalesce(table[column].combine_chunks().cast(pa.string()), as_text)


def _genre_lists(table: pa.Table, column: str | None, separators: dict[str, str]) -> pa.Array:
    kind = pa.list_(pa.string())
    if column is None:
        return pa.array([[]] * table.num_rows, kind)
    separator = separators.get(column, SEPARATOR)
    lists = [_genres(value, separator) for value in table[column].to_pylist()]
    return pa.array(lists, kind)


def _genres(value: Any, separator: str) -> list[str]:
    if value is None or isinstance(value, str):
        return _split(value, separator)
    return [str(genre) for genre in (value if isinstance(value, list) else [value])]


def _years(table: pa.Table, column: str | None, path: str, first_row: int) -> pa.Array:
    if column is None:
        return pa.nulls(table.num_rows, pa.int32())
    years = table[column].combine_chunks()
    with suppress(pa.ArrowInvalid):  # "1999.0", as a table with gaps is often written
        years = years.cast(pa.float64())
    numbers = read_ids(years, path, column, first_row, whole_numbers=True)
    absurd = pc.index(pc.greater(pc.abs_checked(numbers), 9999), True).as_py()
    if absurd >= 0:
        raise UserError(
            f"{path}: row {first_row + absurd}, column {column!r}: {numbers[absurd]} is no year"
        )
    return numbers.cast(pa.int32())


def _further(
    column: pa.ChunkedArray, name: str, separator: str | None, is_text: bool, path: str
) -> pa.Array | pa.ChunkedArray:
    """A column of any other name, with the type that its values have."""
    if separator is not None:
        lists = [_split(value, separator) for value in column.to_pylist()]
        return pa.array(lists, pa.list_(pa.string()))
    if is_vector(column.type):
        return _vectors(column.to_pylist(), name, path)
    if not is_text:
        return column
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:
        pass
    known = [value for value in column.drop_null().to_pylist()]
    if known and all(value.startswith("[") and value.endswith("]") for value in known):
        try:
            values = [None if v is None else json.loads(v) for v in column.to_pylist()]
        except ValueError:
            return column
        return _lists(values, column, name, path)
    return column


def _lists(
    values: list[list[Any] | None], column: pa.ChunkedArray, name: str, path: str
) -> pa.Array | pa.ChunkedArray:
    """Vectors or lists of texts; the text itself where it is neither."""
    parts = [part for value in values if value for part in value]
    if all(isinstance(part, str) for part in parts):
        return pa.array(values, pa.list_(pa.string()))
    if all(part is None or isinstance(part, int | float) for part in parts):
        return _vectors(values, name, path)
    return column


def _vectors(values: list[list[float] | None], name: str, path: str) -> pa.Array:
    """Vectors of one length, float32; null where there is none."""
    lengths = {len(value) for value in values if value is not None}
    if len(lengths) > 1:
        raise UserError(
            f"{path}: column {name!r} holds vectors of {min(lengths)} to {max(lengths)} numbers: "
            f"they must be of one length"
        )
    size = lengths.pop() if lengths else 0
    absent = np.array([value is None for value in values], dtype=bool)
    rows = np.array([value if value is not None else [0.0] * size for value in values], np.float32)
    if not np.isfinite(rows).all():
        row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise UserError(f"{path}: column {name!r}, item {row + 1}: a number is not finite")
    return vector_column(rows.reshape(len(values), size), absent)


def _split(text: str | None, separator: str) -> list[str]:
    return [part.strip() for part in (text or "").split(separator) if part.strip()]
