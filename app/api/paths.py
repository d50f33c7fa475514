"""Ids as parts of a path: a slash ends one, an encoded slash belongs to it."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import unquote

from fastapi import Path as PathParameter
from pydantic import BeforeValidator
from starlette.types import Scope

from app.fields import TextId

_BELOW = ("/users/", "/similar/", "/api/v1/recommendations/")
_ENCODED = re.compile("%2f", re.IGNORECASE)
_STAND_IN = "\udc2f"  # half a character: no decoded path has it


def with_encoded_slashes(scope: Scope) -> Scope:
    """The scope with a path that tells them from plain ones; the server has decoded its own.

    One with a slash at its end is no route's, and left as it is to be redirected.
    """
    raw = scope.get("raw_path") or b""
    if b"%2" not in raw or raw.endswith(b"/") or not scope["path"].startswith(_BELOW):
        return scope
    return {**scope, "path": unquote(_ENCODED.sub(_STAND_IN, raw.decode("latin-1")))}


def _id_of(part: str) -> str:
    return part.replace(_STAND_IN, "/")


PathId = Annotated[TextId, BeforeValidator(_id_of), PathParameter()]
