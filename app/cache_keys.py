"""How entries of the slate cache are named, so that those of one user can be found."""

from __future__ import annotations

import hashlib

from app.domain import UserId


def user_prefix(user_id: UserId) -> str:
    """What the keys of everything cached for a user begin with. 1 and "1" are one user."""
    return f"user:{hashlib.blake2b(str(user_id).encode(), digest_size=12).hexdigest()}:"
