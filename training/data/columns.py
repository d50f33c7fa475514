"""Arrow columns of any type into ids, ratings and times, naming the first bad value."""

import difflib
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.errors import UserError

_CAST_ERRORS = (pa.ArrowInvalid, pa.ArrowNotImplementedError)
TIME_TEXT_TYPES = (pa.timestamp("us"), pa.timestamp("us", tz="UTC"))


class BadValueError(Exception):
    """The value at `position` of a column is not `expected` ("a number", ...)."""

    def __init__(self, position: int, value: object, expected: str) -> None:
        super().__init__(position, value, expected)
        self.position, self.value, self.expected = position, value, expected


def to_ids(column: pa.Array, *, whole_numbers: bool) -> pa.Array:
    """Ids as int64, or as strings when the column holds text and need not be whole numbers."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return to_ids(column.dictionary_decode(), whole_numbers=whole_numbers)
    if pa.types.is_binary(kind):  # what some writers of Parquet make of text
        return to_ids(_cast(column, pa.string(), "UTF-8 text"), whole_numbers=whole_numbers)
    if _is_text(kind) and not whole_numbers:
        return column.cast(pa.string())
    return _cast(column, pa.int64(), "a whole number")


def to_ratings(column: pa.Array) -> pa.Array:
    """Ratings as float32; null stays null (unrated) and NaN stays NaN."""
    return _cast(column, pa.float64(), "a number").cast(pa.float32())


def to_times(column: pa.Array) -> pa.Array:
    """Unix seconds, int64, from numbers of seconds, Arrow times, or ISO 8601 text (UTC)."""
    kind = column.type
    if pa.types.is_temporal(kind):
        return _seconds(column)
    if _is_text(kind):
        for as_time in (_text_as_number, *(_text_as(kind) for kind in TIME_TEXT_TYPES)):
            try:
                return as_time(column)
            except pa.ArrowInvalid:
                continue
        raise _first_bad(column, _is_time, "a time (unix seconds or ISO 8601)")
    if pa.types.is_integer(kind):
        return _cast(column, pa.int64(), "a time (unix seconds)")
    return _floor(_cast(column, pa.float64(), "a time (unix seconds)"))


def whole_number_texts(values: pa.Array) -> pa.Array | None:
    """Texts as int64 when every one is a plain whole number such as 17 (not 017), else None."""
    try:
        numbers = values.cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    same = pc.all(pc.equal(numbers.cast(pa.string()), values), min_count=0).as_py()
    return numbers if same else None


def require_columns(wanted: Iterable[str], present: Iterable[str], where: object) -> None:
    """UserError naming the first wanted column that is not present, and those that are."""
    present = list(present)
    for name in wanted:
        if name in present:
            continue
        by_lower = {column.lower(): column for column in present}
        close = difflib.get_close_matches(name.lower(), by_lower, n=1)
        hint = f", did you mean {by_lower[close[0]]!r}?" if close else ""
        raise UserError(f"{where} has no column {name!r}{hint} (it has: {', '.join(present)})")


def _is_text(kind: pa.DataType) -> bool:
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(is_text or pa.types.is_string_view(kind))


def _cast(column: pa.Array, kind: pa.DataType, expected: str) -> pa.Array:
    def fits(value: pa.Scalar) -> bool:
        try:
            value.cast(kind)
        except _CAST_ERRORS:
            return False
        return True

    try:
        return column.cast(kind)
    except _CAST_ERRORS:
        raise _first_bad(column, fits, expected) from None


def _seconds(column: pa.Array) -> pa.Array:
    zone = getattr(column.type, "tz", None)
    microseconds = column.cast(pa.timestamp("us", tz=zone), safe=False).cast(pa.int64())
    return _floor(pc.divide(microseconds.cast(pa.float64(), safe=False), 1e6))


def _floor(numbers: pa.Array) -> pa.Array:
    """Whole seconds; what is not finite is no time, and null."""
    finite = pc.if_else(pc.is_finite(numbers), numbers, None)
    return pc.floor(finite).cast(pa.int64(), safe=False)


def _text_as_number(column: pa.Array) -> pa.Array:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return _floor(column.cast(pa.float64()))


def _text_as(kind: pa.DataType) -> Callable[[pa.Array], pa.Array]:
    return lambda column: _seconds(column.cast(kind))


def _is_time(value: pa.Scalar) -> bool:
    for kind in (pa.float64(), *TIME_TEXT_TYPES):
        try:
            value.cast(kind)
        except pa.ArrowInvalid:
            continue
        return True
    return False


def _first_bad(column: pa.Array, fits: Callable[[pa.Scalar], bool], expected: str) -> BadValueError:
    for position, value in enumerate(column):
        if value.is_valid and not fits(value):
            return BadValueError(position, value.as_py(), expected)
    # Every value fits on its own: a column that mixes, say, times with and without a zone.
    mixed = int(np.argmax(np.asarray(column.is_valid())))
    return BadValueError(mixed, column[mixed].as_py(), f"{expected} of the same form throughout")
