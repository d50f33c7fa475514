"""How deep a JSON text nests, found without parsing it."""

from __future__ import annotations

import re

from app.errors import InvalidRequest

# A string is skipped whole; one that never ends takes the rest, and the parser will say so.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
_OPENING = (b"[", b"{")
_CLOSING = (b"]", b"}")


def check_depth(text: bytes, most: int) -> None:
    """Raises InvalidRequest for more than `most` objects and arrays inside each other."""
    if text.count(b"[") + text.count(b"{") <= most:
        return
    depth = 0
    for token in _TOKEN.finditer(text):
        if token[0] in _OPENING:
            depth += 1
            if depth > most:
                raise InvalidRequest(
                    f"body: nested deeper than {most} objects and arrays", field="body"
                )
        elif token[0] in _CLOSING:
            depth -= 1
