"""Calls over a Unix socket: real sockets, in one process."""

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest

from app.adapters.unix_calls import CallFailed, Connection, Listener


class Target:
    def __init__(self):
        self.gate = asyncio.Event()

    def double(self, numbers):
        return numbers * 2

    async def wait(self):
        await self.gate.wait()
        return "waited"

    def fail(self):
        raise ValueError("of one batch")


@asynccontextmanager
async def connected(directory):
    target = Target()
    listener = Listener(target, directory / "s")
    await listener.start()
    connection = await Connection.to(directory / "s")
    try:
        yield target, connection
    finally:
        await connection.close()
        await listener.close()


async def test_arrays_go_there_and_back(tmp_path):
    numbers = np.arange(1_000_000, dtype=np.float32).reshape(1000, 1000)
    async with connected(tmp_path) as (_, connection):
        answer = await connection.call("double", numbers)
    assert answer.dtype == np.float32
    np.testing.assert_array_equal(answer, numbers * 2)


async def test_a_call_that_waits_does_not_hold_up_the_next(tmp_path):
    async with connected(tmp_path) as (target, connection):
        waiting = asyncio.create_task(connection.call("wait"))
        assert await connection.call("double", 3) == 6
        assert connection.unanswered == 1
        target.gate.set()
        assert await waiting == "waited"
        assert connection.unanswered == 0


async def test_what_the_method_raises_is_told_and_the_connection_lives_on(tmp_path, caplog):
    async with connected(tmp_path) as (_, connection):
        with pytest.raises(CallFailed, match="ValueError: of one batch"):
            await connection.call("fail")
        with pytest.raises(CallFailed, match="no attribute 'missing'"):
            await connection.call("missing")
        assert await connection.call("double", 1) == 2
    assert "of one batch" in caplog.text


async def test_an_answer_that_nobody_waits_for_any_more_is_owed_until_it_comes(tmp_path):
    async with connected(tmp_path) as (target, connection):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await connection.call("wait")
        assert connection.unanswered == 1
        target.gate.set()
        assert await connection.call("double", 1) == 2
        assert connection.unanswered == 0


async def test_calls_end_when_the_far_side_goes(tmp_path):
    """What the kernel does with the sockets of a process that was killed."""

    async def half(reader, writer):
        await reader.readexactly(4)
        writer.close()

    server = await asyncio.start_unix_server(half, tmp_path / "s")
    connection = await Connection.to(tmp_path / "s")
    with pytest.raises(ConnectionError):
        await connection.call("wait")
    assert not connection.is_open
    with pytest.raises(ConnectionError):
        await connection.call("wait")
    server.close()


async def test_nobody_listens(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        await Connection.to(tmp_path / "s")
