"""An HTTP/1.1 client connection that costs little: prepared requests, Content-Length answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import cast

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
_CLOSE = b"\r\nconnection: close"

# Called with the time and the problem, if any, when an answer is complete or will never come.
OnAnswer = Callable[[float, str | None], None]


class Connection(asyncio.Protocol):
    """One kept-alive connection with at most one request in flight."""

    def __init__(self, must_contain: bytes) -> None:
        self._must_contain = must_contain
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._size: int | None = None
        self._fault: str | None = None
        self._on_answer: OnAnswer | None = None

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent, once the last one is answered."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes, on_answer: OnAnswer) -> None:
        """Send; `on_answer` is called exactly once, later."""
        assert self._transport is not None and self._on_answer is None
        self._on_answer = on_answer
        self._transport.write(request)

    def close(self) -> None:
        """End the connection; a request in flight is answered with a problem."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._finish(self._fault or f"connection lost: {exc or 'closed by the service'}")

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        if self._size is None:
            self._size = self._answer_size()
        if self._size is not None and len(self._received) >= self._size:
            if self._is_last():
                self.close()  # a proxy that reloads says so; sending on would lose the request
            self._finish(self._problem())

    def _answer_size(self) -> int | None:
        """Bytes of the whole answer; None while its head is incomplete."""
        head_end = self._received.find(_HEAD_END)
        if head_end < 0:
            return None
        head = self._received[:head_end].lower()
        at = head.find(_LENGTH)
        if at < 0:
            self._fault = "an answer without Content-Length"
            self.close()
            return None
        length = head[at + len(_LENGTH) :].split(b"\r\n", 1)[0]
        return head_end + len(_HEAD_END) + int(length)

    def _is_last(self) -> bool:
        head_end = self._received.find(_HEAD_END)
        return _CLOSE in self._received[:head_end].lower()

    def _problem(self) -> str | None:
        if self._received[9:12] != b"200":
            return self._received[:300].decode(errors="replace")
        if self._must_contain not in self._received:
            return f"no {self._must_contain.decode()} in the answer"
        return None

    def _finish(self, problem: str | None) -> None:
        on_answer, self._on_answer = self._on_answer, None
        self._received, self._size = b"", None
        if on_answer is not None:
            on_answer(perf_counter(), problem)
