"""Who may ask what, and how often: origins, API keys, scopes, the rate limit and the audit log.

Without MARQUEE_API_KEYS everybody may ask everything; the rate limit per user holds all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path

import orjson

from app import logs
from app.api.call import Call
from app.domain import UserId
from app.errors import Forbidden, TooManyRequests, Unauthorized
from app.keys import KeyRing, KeysError, Scope, read_keys
from app.limits import WINDOW_S, Allowance, RateLimiter

_log = logs.get("gate")
_audit = logs.get("audit")

# Open to all: the page, its files, the documentation and what probes and Prometheus ask.
_OPEN = frozenset({"/", "/health", "/ready", "/metrics", "/docs", "/openapi.json"})
_OPEN_BELOW = ("/page/", "/docs/")
_RELOAD_S = 2.0

# What browsers say of a request that another origin's page makes. No page can set this header, and
# programs send none. A form's POST comes without a preflight, so CORS alone does not keep it out.
_FOREIGN = (b"cross-site", b"same-site")
_SAFE = ("GET", "HEAD", "OPTIONS")

Headers = Mapping[bytes, bytes]


def required_scope(method: str, path: str) -> Scope | None:
    """The scope of a request, None for what is open.

    Whatever is not known to be less asks for admin: everything below /admin/, and every method
    but GET, HEAD and POST.
    """
    if path in _OPEN or path.startswith(_OPEN_BELOW):
        return None
    if method not in ("GET", "HEAD", "POST") or path.startswith("/admin/"):
        return Scope.ADMIN
    return Scope.FEEDBACK if path == "/feedback" else Scope.RECOMMEND


class Gate:
    """The checks of one ingress replica."""

    def __init__(
        self,
        limiter: RateLimiter,
        *,
        per_minute: int,
        keys_file: str = "",
        audit_file: str = "",
        origins: Collection[str] = (),
    ) -> None:
        """per_minute: requests per user, and per key; 0: no limit. keys_file: empty: no keys.
        audit_file: where admin calls are noted beside the log; empty: nowhere. origins: whose
        pages may write beside the service's own; "*" among them: everybody's.

        Raises KeysError when the file cannot be read.
        """
        self._limiter = limiter
        self._per_minute = per_minute
        self._keys_file = keys_file
        self._audit_file = audit_file
        self._origins = frozenset(origins)
        self._ring: KeyRing | None = read_keys(keys_file) if keys_file else None
        self._changed_at = _changed_at(keys_file)

    def admit(self, call: Call, method: str, path: str, headers: Headers) -> None:
        """Let the call pass and note whose it is.

        Raises Unauthorized, Forbidden or TooManyRequests.
        """
        scope = required_scope(method, path)
        call.is_admin = scope is Scope.ADMIN
        if headers.get(b"sec-fetch-site") in _FOREIGN and method not in _SAFE:
            self._check_origin(headers.get(b"origin", b"").decode("latin-1"))
        if self._ring is None or scope is None:
            return
        key = self._ring.find(_presented(headers))
        if key is None:
            raise Unauthorized("send an API key that holds: `Authorization: Bearer mq_...`")
        call.key_id = key.id
        if scope not in key.scopes:
            raise Forbidden(f"the key {key.id} lacks the scope {scope.value}")
        call.counted(self._count(f"key:{key.id}", "this key"))

    def _check_origin(self, origin: str) -> None:
        if self._origins.isdisjoint((origin, "*")):
            raise Forbidden(
                f"pages of {origin or 'other origins'} may not write here: MARQUEE_CORS_ORIGINS "
                "does not name them"
            )

    def count_user(self, call: Call, user_id: UserId) -> None:
        """Count a request for a user. Raises TooManyRequests."""
        if self._per_minute:
            call.counted(self._count(f"user:{user_id}", "this user"))

    def audit(self, call: Call, method: str, path: str, status: int) -> None:
        """Note how a call that asks for the scope admin ended, in the log and in the file."""
        entry = {"key": call.key_id, "method": method, "path": path, "status": status}
        _audit.info("admin", **entry)
        if self._audit_file:
            line = {"at": datetime.now(UTC).isoformat(), "request_id": call.request_id} | entry
            with Path(self._audit_file).open("ab") as file:  # one write: replicas may share it
                file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def _count(self, name: str, whose: str) -> Allowance | None:
        if not self._per_minute:
            return None
        allowance = self._limiter.take(name, self._per_minute)
        if not allowance.is_allowed:
            raise TooManyRequests(
                f"{self._per_minute} requests in {WINDOW_S} s are all that {whose} may make; "
                f"try again in {allowance.retry_after_s} s",
                limit=allowance.limit,
                reset_s=allowance.reset_s,
                retry_after_s=allowance.retry_after_s,
            )
        return allowance

    async def follow_keys(self) -> None:
        """Read the file again whenever it changes, until cancelled."""
        while self._keys_file:
            await asyncio.sleep(_RELOAD_S)
            await self.reload()

    async def reload(self) -> None:
        """Read the file if it changed; one that cannot be read leaves the keys as they were."""
        changed_at = await asyncio.to_thread(_changed_at, self._keys_file)
        if changed_at == self._changed_at:
            return
        self._changed_at = changed_at
        try:
            self._ring = await asyncio.to_thread(read_keys, self._keys_file)
        except KeysError as error:
            _log.error("keys not read", reason=str(error))
        else:
            _log.info("keys read", keys=len(self._ring.keys))


def _presented(headers: Headers) -> str:
    """The key that the request shows: `Authorization: Bearer`, or `X-API-Key`."""
    kind, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    return headers.get(b"x-api-key", b"").decode("latin-1").strip()


def _changed_at(path: str) -> int | None:
    """When the file was last written, nanoseconds; None without one."""
    try:
        return Path(path).stat().st_mtime_ns if path and not path.startswith("{") else None
    except OSError:
        return None
