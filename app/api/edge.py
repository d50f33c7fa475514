"""What happens around every request: its id, its size limit, its measure, its log line."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson
import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import logs
from app.api.call import Call
from app.api.front import CheckLoad, may_read_cache, overload
from app.api.gate import Gate
from app.api.paths import decoded
from app.errors import MarqueeError, PayloadTooLarge, RequestTimeout, TooManyRequests
from app.limits import WINDOW_S, Allowance
from app.metrics import Metrics

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
UNEXPECTED = "an unexpected error; it is in the service's log"
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_log = logs.get("api")


DirectHandler = Callable[[bytes, Call], Awaitable[bytes]]


class Edge:
    """The outermost ASGI layer of the API.

    A caller's `X-Request-ID` is kept when it is 1 to 64 characters of [A-Za-z0-9._-]; otherwise
    one is made. It is in the response's header, in every body and in every log line.

    POST paths in `direct` are answered here, from body to body: the framework's own layers cost
    more than a cached answer does. The framework still routes and documents them.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        direct: Mapping[str, DirectHandler],
        check_load: CheckLoad,
        gate: Gate,
        metrics: Metrics,
        max_body_bytes: int,
        body_timeout_s: float,
        access_log: bool,
    ) -> None:
        self._app = app
        self._direct = direct
        self._check_load = check_load
        self._gate = gate
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._access_log = logs.AccessLog() if access_log else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        call = Call(_request_id(headers), time.perf_counter(), may_read_cache(headers))
        if scope["method"] == "HEAD":  # as GET; the server, whose scope this is, sends no body
            scope = {**scope, "method": "GET"}
        scope["call"] = call
        path = scope["path"]
        status = 500

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] += _standing_headers(call)
            await send(message)

        structlog.contextvars.bind_contextvars(request_id=call.request_id)
        try:
            if (refusal := overload(scope, self._check_load)) is not None:
                scope["route"] = scope["path"]
                raise refusal
            self._gate.admit(call, scope["method"], scope["path"], headers)
            self._check_announced_size(headers)
            limited = _limited(receive, self._max_body_bytes, self._body_timeout_s)
            handler = self._direct.get(scope["path"]) if scope["method"] == "POST" else None
            if handler is None:
                scope = decoded(scope)
                await self._app(scope, limited, send_noting_status)
            else:
                scope["route"] = scope["path"]
                body = await handler(await _read_body(limited), call)
                await _send_json(send_noting_status, 200, body)
        except MarqueeError as error:
            await send_error(send_noting_status, error, call.request_id)
        except ClientDisconnect:
            status = 499  # nobody is there to be answered
        except Exception:
            _log.exception("unexpected")
            await send_error(send_noting_status, MarqueeError(UNEXPECTED), call.request_id)
        finally:
            self._note(scope, status, time.perf_counter() - call.started_at)
            if call.is_admin and status != 405:  # there is no such call
                self._gate.audit(call, scope["method"], path, status)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        matched: Any = scope.get("route", "unmatched")
        route = str(getattr(matched, "path", matched))
        self._metrics.request(route, status, seconds)
        if self._access_log is not None:
            self._access_log.note(
                request_id=scope["call"].request_id,
                method=scope["method"],
                route=route,
                status=status,
                latency_ms=round(seconds * 1000, 2),
            )

    def _check_announced_size(self, headers: Mapping[bytes, bytes]) -> None:
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._max_body_bytes:
            raise _too_large(self._max_body_bytes)


def error_body(error: MarqueeError, request_id: str) -> bytes:
    """The JSON of an error."""
    problem: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.field is not None:
        problem["field"] = error.field
    return orjson.dumps({"error": problem, "request_id": request_id})


async def send_error(send: Send, error: MarqueeError, request_id: str) -> None:
    """Answer with an error, below the framework."""
    extra = tuple(error_headers(error).items())
    if isinstance(error, PayloadTooLarge | RequestTimeout):
        extra += (("connection", "close"),)  # the rest of the body is not read
    await _send_json(send, error.status, error_body(error, request_id), extra)


def error_headers(error: MarqueeError) -> dict[str, str]:
    """Headers that go with an error: when to try again, and how to prove who asks."""
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if isinstance(error, TooManyRequests):
        spent = Allowance(error.limit, 0, error.reset_s)
        headers |= {n.decode(): value.decode() for n, value in _allowance_headers(spent)}
    if error.status == 401:
        headers["www-authenticate"] = 'Bearer realm="marquee"'
    return headers


def _standing_headers(call: Call) -> list[tuple[bytes, bytes]]:
    """Headers of every answer."""
    headers = [(b"x-request-id", call.request_id.encode()), _NO_SNIFFING]
    return headers if call.allowance is None else headers + _allowance_headers(call.allowance)


def _allowance_headers(allowance: Allowance) -> list[tuple[bytes, bytes]]:
    """Limit, remaining and reset as the IETF's draft of RateLimit fields names them."""
    return [
        (b"ratelimit-limit", b"%d" % allowance.limit),
        (b"ratelimit-remaining", b"%d" % allowance.remaining),
        (b"ratelimit-reset", b"%d" % allowance.reset_s),
        (b"ratelimit-policy", b"%d;w=%d" % (allowance.limit, WINDOW_S)),
    ]


async def _send_json(
    send: Send, status: int, body: bytes, extra: Sequence[tuple[str, str]] = ()
) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *((name.encode(), value.encode()) for name, value in extra),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _read_body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is larger than {limit} bytes; send less at a time")


def _limited(receive: Receive, limit: int, timeout_s: float) -> Receive:
    """`receive` that stops at the limit, for bodies that do not announce their size, and at the
    time by which a body must be there: who sends a byte now and then would stay for ever."""
    read = 0
    deadline = asyncio.get_running_loop().time() + timeout_s
    is_whole = False

    async def receive_counting() -> Message:
        nonlocal read, is_whole
        if is_whole:  # what comes after the body, a disconnect, may take its time
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise RequestTimeout(f"the body was not there after {timeout_s:g} s") from None
        is_whole = not message.get("more_body", False)
        read += len(message.get("body", b""))
        if read > limit:
            raise _too_large(limit)
        return message

    return receive_counting
