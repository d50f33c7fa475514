"""Ids as parts of a path: a slash ends one, an encoded slash belongs to it.

The server has decoded its own path, anything that is no UTF-8 into U+FFFD. That would be another
user's id, so a path is decoded here once more.
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import unquote

from fastapi import Path as PathParameter
from pydantic import BeforeValidator
from starlette.types import Scope

from app.errors import InvalidRequest
from app.fields import TextId

_BELOW = ("/users/", "/similar/", "/api/v1/recommendations/")
_ENCODED = re.compile("%2f", re.IGNORECASE)
_STAND_IN = "\udc2f"  # half a character: no decoded path has it


def decoded(scope: Scope) -> Scope:
    """The scope with a path that tells encoded slashes from plain ones.

    One with a slash at its end is no route's, and left as it is to be redirected. Raises
    InvalidRequest for a path that is not UTF-8.
    """
    raw = scope.get("raw_path") or b""
    if b"%" not in raw:
        return scope
    try:
        path = unquote(_ENCODED.sub(_STAND_IN, raw.decode("ascii")), errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequest("path: not UTF-8", field="path") from None
    if raw.endswith(b"/") or not scope["path"].startswith(_BELOW):
        return scope
    return {**scope, "path": path}


def _id_of(part: str) -> str:
    return part.replace(_STAND_IN, "/")


PathId = Annotated[TextId, BeforeValidator(_id_of), PathParameter()]
