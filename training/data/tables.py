"""Small tables of text as people write them: quotes, commas and line ends inside, a BOM, CRLF."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from training.data.columns import BadValueError, to_ids
from training.data.locations import read_bytes
from training.data.sources import delimited_header
from training.errors import UserError


def read_text_columns(path: str) -> pa.Table:
    """A csv with a header, every column as text; empty fields are null."""
    names, delimiter = delimited_header(path)
    try:
        return pacsv.read_csv(
            io.BytesIO(read_bytes(path)),
            read_options=pacsv.ReadOptions(column_names=names, skip_rows=1),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def read_ids(
    column: pa.Array | pa.ChunkedArray,
    path: str,
    name: str,
    first_row: int,
    *,
    whole_numbers: bool,
) -> pa.Array:
    """Ids as `columns.to_ids` has them; UserError names the row of one that is none."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    try:
        return to_ids(column, whole_numbers=whole_numbers)
    except BadValueError as bad:
        raise UserError(
            f"{path}: row {first_row + bad.position}, column {name!r}: "
            f"{bad.value!r} is not {bad.expected}"
        ) from None


def vector_column(rows: np.ndarray, absent: np.ndarray) -> pa.Array:
    """Rows float32 [N, D] as a column of lists, null where `absent` (bool [N]).

    Lists of a fixed size would say more, but Parquet cannot read them back beside a null.
    """
    ends = np.concatenate([[0], np.cumsum(np.where(absent, 0, rows.shape[1]))])
    return pa.ListArray.from_arrays(
        pa.array(ends.astype(np.int32)), pa.array(rows[~absent].ravel()), mask=pa.array(absent)
    )
