"""How entries of the slate cache are named, so that those of one user can be found."""

from __future__ import annotations

import hashlib

from app.domain import UserId


def user_prefix(user_id: UserId) -> str:
    """What the keys of everything cached for a user begin with. 1 and "1" are one user."""
    text = str(user_id).encode("utf-8", "surrogatepass")
    return f"user:{hashlib.blake2b(text, digest_size=12).hexdigest()}:"
