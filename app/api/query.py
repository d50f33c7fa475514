"""Query parameters: one that nobody reads is a mistake of the caller's, not a wish to pass over."""

from __future__ import annotations

from typing import Any, get_args, get_origin
from urllib.parse import unquote_plus

from fastapi import Request

from app.errors import InvalidRequest


async def check_query(request: Request) -> None:
    """Raises InvalidRequest for a parameter that the route does not have, for one that is given
    twice but is no list, and for one that is not UTF-8: decoded anyhow it would be another."""
    query = request.scope["query_string"]
    if not query:
        return
    has = request.scope["route"].dependant.query_params
    lists = {param.alias for param in has if _is_list(param.field_info.annotation)}
    names = [param.alias for param in has]
    seen: set[str] = set()
    for pair in filter(None, query.split(b"&")):
        name = _name_of(pair)
        if name not in names:
            raise InvalidRequest(
                f"{name!r} is no parameter; this path has {', '.join(names) or 'none'}", field=name
            )
        if name in seen and name not in lists:
            raise InvalidRequest(f"{name}: given more than once", field=name)
        seen.add(name)


def _name_of(pair: bytes) -> str:
    name, _, value = pair.partition(b"=")
    try:
        unquote_plus(value.decode("ascii"), errors="strict")
        return unquote_plus(name.decode("ascii"), errors="strict")
    except UnicodeDecodeError:
        field = unquote_plus(name.decode("ascii", "replace"))
        raise InvalidRequest(f"{field}: not UTF-8, percent-encoded", field=field) from None


def _is_list(annotation: Any) -> bool:
    """Whether a parameter of this type may be given several times."""
    return any(get_origin(kind) is list for kind in (annotation, *get_args(annotation)))
