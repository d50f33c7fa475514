"""Clients that are slow, or stop in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_HEAD = b"POST /recommend HTTP/1.1\r\nHost: slow\r\nContent-Type: application/json\r\n"
_LENGTH = 1000
_EVERY_S = 1.0


@asynccontextmanager
async def slow(host: str, port: int, clients: int) -> AsyncIterator[None]:
    """Half of them send a header, half a body, one byte a second; those cut off come again."""
    tasks = [
        asyncio.create_task(_trickle(host, port, in_body=number % 2 == 0))
        for number in range(clients)
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def half_request(host: str, port: int, *, in_body: bool, silent_s: float) -> bytes:
    """Send half a request, then nothing; what came back when the connection ended or time was up.

    silent_s: how long to wait; 0 hangs up at once.
    """
    reader, writer = await asyncio.open_connection(host, port)
    answer = b""
    try:
        writer.write(_half(in_body))
        await writer.drain()
        if silent_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(silent_s):
                    answer = await reader.read(1000)
    finally:
        writer.close()
    return answer


def _half(in_body: bool) -> bytes:
    return _HEAD + (b'Content-Length: %d\r\n\r\n{"user' % _LENGTH if in_body else b"X-Half: ")


async def _trickle(host: str, port: int, *, in_body: bool) -> None:
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(_half(in_body))
                while not writer.is_closing():
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(_EVERY_S)
            finally:
                writer.close()
        await asyncio.sleep(_EVERY_S)
