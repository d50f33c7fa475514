"""Kinds of values that several requests have.

What JSON Schema can say of them is all that is asked of them: whatever fits the OpenAPI document
is understood.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

_INT64 = 2**63
_NO_CONTROLS = "^[^\\x00-\\x1f\\x7f-\\x9f]+$"
_PRINTABLE = re.compile(_NO_CONTROLS.replace("$", r"\Z"))
# Segments of a path that lead elsewhere: clients and proxies take them out of an address.
_DOTS = (".", "..")


def _whole(value: Any) -> Any:
    """JSON knows one kind of number: 3.0 is the integer 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _identifier(value: Any) -> int | str:
    """An id is an integer or a short text; a fraction or a boolean is a mistake, not an id."""
    value = _whole(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if not -_INT64 <= value < _INT64:
            raise ValueError("an integer id must fit 64 bits")
        return value
    if isinstance(value, str):
        return _text_id(value)
    raise ValueError("an id must be an integer or a text")


def _text_id(value: str) -> str:
    if len(value) > 128 or not _PRINTABLE.match(value):
        raise ValueError("a text id must be 1 to 128 characters, none of them a control character")
    if value in _DOTS:
        raise ValueError("a text id must not be . or .., which no path can name")
    return value


def _words(value: str) -> str:
    if len(value) > 200 or not _PRINTABLE.match(value):
        raise ValueError("must be 1 to 200 characters, none of them a control character")
    return value


_TEXT_SCHEMA: dict[str, Any] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 128,
    "pattern": _NO_CONTROLS,
    "not": {"enum": list(_DOTS)},
}

Identifier = Annotated[
    int | str,
    BeforeValidator(_identifier),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": -_INT64, "maximum": _INT64 - 1}, _TEXT_SCHEMA]}
    ),
]
TextId = Annotated[str, BeforeValidator(_text_id), WithJsonSchema(_TEXT_SCHEMA)]
Words = Annotated[
    str,
    BeforeValidator(_words),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 200, "pattern": _NO_CONTROLS}),
]
WHOLE = BeforeValidator(_whole)  # goes with a strict int
Genre = Annotated[str, Field(min_length=1, max_length=100)]
Year = Annotated[int, Field(strict=True, ge=1, le=9999), WHOLE]
Years = Annotated[
    tuple[Year | None, Year | None] | None,
    Field(description="Two years in either order, both included; null leaves an end open."),
]


def year_range(years: tuple[int | None, int | None] | None) -> tuple[int | None, int | None]:
    """First and last year."""
    first, last = years or (None, None)
    if first is not None and last is not None and first > last:
        return last, first
    return first, last


def problem(error: Mapping[str, Any]) -> str:
    """What is wrong with a field, of one of pydantic's errors but not in its words."""
    if error["type"] == "extra_forbidden":
        return "unknown field"
    return str(error["msg"]).removeprefix("Value error, ")
