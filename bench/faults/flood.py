"""Requests at a fixed rate, more than a service can answer, by a client that costs little.

It shares the cores with the service, so that what it spends is missing there: prepared requests
over kept-alive connections, whose answers are counted, not read.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.connection import Connection

_DRAIN_S = 30.0
_LOOK_EVERY_S = 1.0


@dataclass
class Outcome:
    """What became of the requests; latencies in seconds, from when the request was sent."""

    offered: int = 0
    late_s: float = 0.0
    """How far behind its rate this client fell at worst: it shares cores with the service."""
    served_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    """Of answers 429 that say when to ask again."""
    problems: Counter[str] = field(default_factory=Counter)
    """All other answers, and those that never came."""

    def note(self, took_s: float, problem: str | None) -> None:
        """An answer came, or will not come. problem: None for status 200, else how it begins."""
        if problem is None:
            self.served_s.append(took_s)
        elif problem.startswith("HTTP/1.1 429") and "\nretry-after: " in problem.lower():
            self.refused_s.append(took_s)
        else:
            self.problems[problem[:100]] += 1


class Flood:
    """An open loop: a request is sent when it is due, on a new connection if none is idle."""

    def __init__(self, host: str, port: int, requests: Sequence[bytes]) -> None:
        """requests: whole HTTP requests, sent in turn."""
        self._address = (host, port)
        self._requests = requests
        self._idle: deque[Connection] = deque()
        self._opened: list[Connection] = []
        self._in_flight = 0

    async def run(self, per_s: float, duration_s: float, look: Callable[[], None]) -> Outcome:
        """All answers to that many requests. look: called every second."""
        outcome = Outcome()
        connecting: set[asyncio.Task[None]] = set()
        start = time.perf_counter()
        next_look_s = 0.0
        while (due_s := outcome.offered / per_s) < duration_s:
            ahead_s = start + due_s - time.perf_counter()
            # Late, answers need their turn all the same.
            await asyncio.sleep(max(0.0, ahead_s))
            if due_s >= next_look_s:
                look()
                next_look_s += _LOOK_EVERY_S
            request = self._requests[outcome.offered % len(self._requests)]
            sent_at = time.perf_counter()
            outcome.late_s = max(outcome.late_s, sent_at - start - due_s)
            outcome.offered += 1
            self._in_flight += 1
            if not self._send(request, sent_at, outcome):
                task = asyncio.create_task(self._connect(request, sent_at, outcome))
                connecting.add(task)
                task.add_done_callback(connecting.discard)
        await self._drain()
        look()
        return outcome

    def _send(self, request: bytes, sent_at: float, outcome: Outcome) -> bool:
        """Whether there was an idle connection to send it on."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                self._send_on(connection, request, sent_at, outcome)
                return True
        return False

    def _send_on(
        self, connection: Connection, request: bytes, sent_at: float, outcome: Outcome
    ) -> None:
        def answered(now: float, problem: str | None) -> None:
            self._in_flight -= 1
            outcome.note(now - sent_at, problem)
            self._idle.append(connection)

        connection.send(request, answered)

    async def _connect(self, request: bytes, sent_at: float, outcome: Outcome) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: Connection(b""), *self._address)
        except OSError as error:
            self._in_flight -= 1
            outcome.note(time.perf_counter() - sent_at, f"no connection: {error.strerror}")
            return
        self._opened.append(connection)
        self._send_on(connection, request, sent_at, outcome)

    async def _drain(self) -> None:
        give_up = time.perf_counter() + _DRAIN_S
        while self._in_flight and time.perf_counter() < give_up:
            await asyncio.sleep(0.01)
        for connection in self._opened:
            connection.close()  # what it still waits for is answered with a problem
        while self._in_flight:
            await asyncio.sleep(0.01)
