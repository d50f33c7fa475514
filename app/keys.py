"""API keys: made at random, kept as hashes in a JSON file, checked in constant time.

A key reads `mq_<id>_<secret>`: the id finds its entry, the secret has 256 random bits. That much
entropy cannot be guessed, so one SHA-256 protects what is on disk as well as a slow hash would, at
a microsecond a request.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

_FORMAT = 1
_PREFIX = "mq"


class Scope(StrEnum):
    """What a key allows. None of them includes another."""

    RECOMMEND = "recommend"
    FEEDBACK = "feedback"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One entry of the file. sha256: of the secret part, in hexadecimal."""

    id: str
    name: str
    scopes: frozenset[Scope]
    sha256: str
    created_at: str
    revoked_at: str | None = None


class KeysError(ValueError):
    """A file of keys that cannot be used, or a key that is not in it; one line."""


class KeyRing:
    """The keys of a file, as they were when it was read."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self.keys = {key.id: key for key in keys}

    def find(self, presented: str) -> ApiKey | None:
        """The entry of a key that holds, None for any other text."""
        prefix, _, rest = presented.partition("_")
        key_id, _, secret = rest.partition("_")
        key = self.keys.get(key_id) if prefix == _PREFIX else None
        if key is None or key.revoked_at is not None:
            return None
        return key if hmac.compare_digest(key.sha256, _sha256(secret)) else None


def read_keys(path: str | Path) -> KeyRing:
    """The keys of the file. Raises KeysError.

    A path that begins with a brace is no path but the file's content, as a Secret holds it.
    """
    text = str(path).strip()
    inline = text.startswith("{")
    path = "MARQUEE_API_KEYS" if inline else path
    try:
        content = json.loads(text if inline else Path(path).read_text("utf-8"))
        if content["format"] != _FORMAT:
            raise KeysError(f"{path}: of format {content['format']!r}, not {_FORMAT}")
        return KeyRing(_entry(entry) for entry in content["keys"])
    except KeysError:
        raise
    except OSError as error:
        raise KeysError(
            f"{path}: {error.strerror}; make a key with `marquee keys create --file {path}`"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise KeysError(f"{path}: not a file of API keys ({error})") from None


def create_key(path: Path, name: str, scopes: Iterable[Scope]) -> tuple[str, ApiKey]:
    """Add a key to the file, which is made when there is none; returns the key to hand out.

    This is the only time that the secret is known.
    """
    secret = secrets.token_urlsafe(32)
    key = ApiKey(secrets.token_hex(4), name, frozenset(scopes), _sha256(secret), _now())
    _change(path, lambda keys: keys | {key.id: key})
    return f"{_PREFIX}_{key.id}_{secret}", key


def revoke_key(path: Path, key_id: str) -> ApiKey:
    """Mark a key as revoked; it stays in the file. Raises KeysError for an id that is not there."""

    def revoked(keys: dict[str, ApiKey]) -> dict[str, ApiKey]:
        if key_id not in keys:
            raise KeysError(f"{path}: has no key {key_id}; `marquee keys list` shows them")
        key = keys[key_id]
        return keys | {key_id: replace(key, revoked_at=key.revoked_at or _now())}

    return _change(path, revoked)[key_id]


def _change(
    path: Path, change: Callable[[dict[str, ApiKey]], dict[str, ApiKey]]
) -> dict[str, ApiKey]:
    """Replace the file by what `change` makes of it; two at a time wait for each other."""
    with _locked(path):
        keys = change(read_keys(path).keys if path.exists() else {})
        entries = [asdict(key) | {"scopes": sorted(key.scopes)} for key in keys.values()]
        aside = path.with_name(path.name + ".tmp")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"format": _FORMAT, "keys": entries}, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
    return keys


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        lock = path.with_name(path.name + ".lock").open("w")
    except OSError as error:
        raise KeysError(f"{path}: {error.strerror}") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _entry(entry: dict[str, Any]) -> ApiKey:
    scopes = frozenset(Scope(scope) for scope in entry["scopes"])
    return ApiKey(**(entry | {"scopes": scopes}))


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
