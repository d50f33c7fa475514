"""Calls between processes of one machine: pickled, over a Unix socket in a directory of their own.

Who can open the socket can run code in the process behind it, so the directory must be its owner's
alone (0700, as tempfile makes them). One connection carries many calls at once; each message is the
number of its call, the count of the bytes that follow, and these.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import pickle
import struct
from pathlib import Path
from typing import Any, Self

_log = logging.getLogger(__name__)

_HEAD = struct.Struct("!QI")
_READ_AHEAD_BYTES = 2**20  # a batch's arrays at once; the default is 64 KiB


class CallFailed(Exception):
    """What the method raised on the far side, as one line."""


class Listener:
    """Lets others call the methods of `target`, until its process or its event loop ends."""

    def __init__(self, target: object, path: Path) -> None:
        """path: of the socket; no more than about 100 bytes. Nothing listens before `start`."""
        self._target = target
        self.path = path
        self._calls: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises OSError where that path cannot be had."""
        self._server = await asyncio.start_unix_server(
            self._serve, self.path, limit=_READ_AHEAD_BYTES
        )

    async def close(self) -> None:
        """Take no more connections; those that are open end with their callers."""
        if self._server is not None:
            self._server.close()
            self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                number, message = await _read(reader)
                call = asyncio.create_task(self._answer(writer, number, *pickle.loads(message)))
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the caller has gone
        finally:
            writer.close()

    async def _answer(
        self, writer: asyncio.StreamWriter, number: int, method: str, arguments: tuple[Any, ...]
    ) -> None:
        try:
            result = getattr(self._target, method)(*arguments)
            answer = (True, await result if inspect.isawaitable(result) else result)
        except Exception as error:
            _log.exception("%s failed", method)
            answer = (False, f"{type(error).__name__}: {error}")
        if not writer.is_closing():
            _write(writer, number, answer)


class Connection:
    """Calls to one Listener."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._open = True
        self._reading = asyncio.create_task(self._read_answers(reader))

    @classmethod
    async def to(cls, path: Path) -> Self:
        """Raises OSError when nobody listens there."""
        return cls(*await asyncio.open_unix_connection(path, limit=_READ_AHEAD_BYTES))

    @property
    def is_open(self) -> bool:
        """False for good once the far side has gone."""
        return self._open

    @property
    def unanswered(self) -> int:
        """Calls that the far side owes an answer, whether or not anybody still waits for it."""
        return len(self._waiting)

    async def call(self, method: str, *arguments: Any) -> Any:
        """What the method returns.

        Raises CallFailed where it raises, and ConnectionError when the far side goes.
        """
        if not self._open:
            raise ConnectionError("the far side has gone")
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        _write(self._writer, number, (method, arguments))
        good, result = await answer
        if not good:
            raise CallFailed(result)
        return result

    async def close(self) -> None:
        """Calls that wait end with ConnectionError."""
        self._reading.cancel()
        await asyncio.wait([self._reading])

    async def _read_answers(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                number, message = await _read(reader)
                answer = self._waiting.pop(number)
                if not answer.done():  # its caller may have lost patience
                    answer.set_result(pickle.loads(message))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open = False
            self._writer.close()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("the far side has gone"))
            self._waiting.clear()


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    number, size = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    return number, await reader.readexactly(size)


def _write(writer: asyncio.StreamWriter, number: int, content: object) -> None:
    message = pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL)
    writer.writelines((_HEAD.pack(number, len(message)), message))
