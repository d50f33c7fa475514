"""What happens around every request: its id, its size limit, its measure, its log line."""

from __future__ import annotations

import re
import time
import uuid
from typing import Any

import orjson
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import logs
from app.errors import MarqueeError, PayloadTooLarge
from app.metrics import Metrics

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_log = logs.get("api")


class Edge:
    """ASGI middleware; the outermost layer of the API.

    A caller's `X-Request-ID` is kept when it is 1 to 64 characters of [A-Za-z0-9._-]; otherwise
    one is made. It is in the response's header, in every body and in every log line.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, max_body_bytes: int, access_log: bool
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id", b""))
        scope["request_id"] = request_id
        scope["started_at"] = start
        status = 500

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                self._check_announced_size(headers)
                limited = _limited(receive, self._max_body_bytes)
                await self._app(scope, limited, send_noting_status)
            except PayloadTooLarge as error:
                await send_error(send_noting_status, error, request_id)
            finally:
                seconds = time.perf_counter() - start
                route = getattr(scope.get("route"), "path", "unmatched")
                self._metrics.request(route, status, seconds)
                if self._access_log:
                    _log.info(
                        "request",
                        method=scope["method"],
                        route=route,
                        status=status,
                        latency_ms=round(seconds * 1000, 2),
                    )

    def _check_announced_size(self, headers: dict[bytes, bytes]) -> None:
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
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": error_body(error, request_id)})


def _request_id(given: bytes) -> str:
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is larger than {limit} bytes; send less at a time")


def _limited(receive: Receive, limit: int) -> Receive:
    """`receive` that stops at the limit, for bodies that do not announce their size."""
    read = 0

    async def receive_counting() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > limit:
            raise _too_large(limit)
        return message

    return receive_counting
