"""A load generator for one HTTP endpoint, meant to run as a process of its own.

``python -m bench.load`` reads a plan as JSON from stdin and writes a sample as JSON to stdout;
`run` does the same from Python. Two kinds of load:

closed   N clients; each sends its next request when it has the answer to the last one.
open     arrivals at a fixed rate with exponential gaps, whatever the service does. Latency counts
         from the time at which the request was due, so a stall is charged to every request that
         it delays, not only to the one that met it.

It speaks just enough HTTP/1.1 to cost little beside the service on the same cores: prepared
requests, kept-alive connections, answers with a Content-Length.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections import deque
from dataclasses import asdict, dataclass, field
from itertools import cycle
from math import ceil
from time import perf_counter

import uvloop

from bench.connection import Connection

# Requests that arrive while this many are unanswered wait for a connection, on the clock.
_MAX_OPEN_CONNECTIONS = 512
_DRAIN_S = 10.0
_RECONNECT_S = 0.05


@dataclass(frozen=True)
class Plan:
    """What to send. Exactly one of `clients` and `arrivals_per_s` is given."""

    host: str
    port: int
    requests: list[str]
    """Whole HTTP requests."""
    order: list[int]
    """Which request is sent next; starts again when it ends."""
    duration_s: float
    once: bool = False
    """A closed loop ends when all of `order` is sent, even if there is time left."""
    warmup_s: float = 0.0
    """Load before the measured time, not counted."""
    clients: int | None = None
    arrivals_per_s: float | None = None
    must_contain: str = ""
    """An answer without this text is an error, as one with a status other than 200 is."""
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.clients is None) == (self.arrivals_per_s is None):
            raise ValueError("a plan has either clients or arrivals_per_s")
        if not self.requests or not self.order:
            raise ValueError("a plan needs requests and the order in which to send them")


@dataclass(frozen=True)
class Sample:
    """What came back in the measured time. Latencies in milliseconds; null without an answer."""

    rps: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    errors: int
    answers: int
    first_error: str | None


def percentile(ordered: list[float], q: float) -> float | None:
    """The smallest value that at least the fraction `q` of the ascending values do not exceed."""
    return ordered[max(0, ceil(q * len(ordered)) - 1)] if ordered else None


def measure(plan: Plan) -> Sample:
    """Carry out the plan in a process of its own. Raises CalledProcessError when that fails."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=json.dumps(asdict(plan)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Sample(**json.loads(done.stdout))


async def run(plan: Plan) -> Sample:
    """Carry out the plan in this event loop."""
    record = _Record()
    send = _closed if plan.clients is not None else _open
    await send(plan, record)
    ordered = sorted(record.latency_s)
    p50, p95, p99 = (percentile(ordered, q) for q in (0.50, 0.95, 0.99))
    return Sample(
        rps=round(record.in_time / plan.duration_s, 1),
        p50_ms=_ms(p50),
        p95_ms=_ms(p95),
        p99_ms=_ms(p99),
        errors=record.errors,
        answers=len(ordered),
        first_error=record.first_error,
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


@dataclass
class _Record:
    """Counts what falls into the measured time [start, end), seconds of perf_counter.

    Throughput is of answers that came in it, latency of requests that were due in it.
    """

    start: float = 0.0
    end: float = 0.0
    in_time: int = 0
    latency_s: list[float] = field(default_factory=list)
    errors: int = 0
    first_error: str | None = None

    def answered(self, since: float, now: float, problem: str | None) -> None:
        if self.start <= now < self.end and problem is None:
            self.in_time += 1
        if not self.start <= since < self.end:
            return
        if problem is None:
            self.latency_s.append(now - since)
        else:
            self.errors += 1
            self.first_error = self.first_error or problem


class _Sender:
    """Hands out requests in the plan's order, and connections."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        encoded = [request.encode() for request in plan.requests]
        self._requests = cycle([encoded[i] for i in plan.order])
        self._sent = 0
        self._opened: list[Connection] = []

    @property
    def is_done(self) -> bool:
        """Whether the plan asks for no more requests."""
        return self._plan.once and self._sent >= len(self._plan.order)

    def next_request(self) -> bytes:
        self._sent += 1
        return next(self._requests)

    async def connect(self) -> Connection | None:
        """A new connection, or None when the service refuses it."""
        loop = asyncio.get_running_loop()
        must_contain = self._plan.must_contain.encode()
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(must_contain), self._plan.host, self._plan.port
            )
        except OSError:
            return None
        self._opened.append(connection)
        return connection

    def close(self) -> None:
        for connection in self._opened:
            connection.close()


async def _closed(plan: Plan, record: _Record) -> None:
    sender = _Sender(plan)
    record.start = perf_counter() + plan.warmup_s
    record.end = record.start + plan.duration_s
    clients = [asyncio.ensure_future(_client(sender, record)) for _ in range(plan.clients or 0)]
    await asyncio.wait(clients, timeout=plan.warmup_s + plan.duration_s + _DRAIN_S)
    sender.close()  # ends what is still waiting, as an error
    await asyncio.gather(*clients)


async def _client(sender: _Sender, record: _Record) -> None:
    while perf_counter() < record.end and not sender.is_done:
        since = perf_counter()
        connection = await sender.connect()
        if connection is None:
            record.answered(since, perf_counter(), "connection refused")
            await asyncio.sleep(_RECONNECT_S)
            continue
        await _until_closed(connection, sender, record)


async def _until_closed(connection: Connection, sender: _Sender, record: _Record) -> None:
    """Keep one request in flight until the measured time or the connection ends."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    since = 0.0

    def send_next() -> None:
        nonlocal since
        since = perf_counter()
        connection.send(sender.next_request(), answered)

    def answered(now: float, problem: str | None) -> None:
        record.answered(since, now, problem)
        if now < record.end and connection.is_open and not sender.is_done:
            send_next()
        else:
            over.set_result(None)

    send_next()
    await over


async def _open(plan: Plan, record: _Record) -> None:
    sender = _Sender(plan)
    arrivals = _Arrivals(sender, record)
    gaps = random.Random(plan.seed)
    assert plan.arrivals_per_s is not None
    due = perf_counter()
    record.start = due + plan.warmup_s
    record.end = record.start + plan.duration_s
    while (due := due + gaps.expovariate(plan.arrivals_per_s)) < record.end:
        # The loop's clock ticks in milliseconds and may wake early; the rest is spun away.
        while (ahead := due - perf_counter()) > 0:
            await asyncio.sleep(ahead)
        arrivals.arrive(due)
    await arrivals.drain(_DRAIN_S)


class _Arrivals:
    """Requests that are due, the connections that carry them, and those that are idle."""

    def __init__(self, sender: _Sender, record: _Record) -> None:
        self._sender = sender
        self._record = record
        self._idle: deque[Connection] = deque()
        self._waiting: deque[float] = deque()
        self._connections = 0
        self._connecting: set[asyncio.Task[None]] = set()
        self._in_flight = 0

    def arrive(self, due: float) -> None:
        """A request is due: send it, or let it wait for a connection."""
        self._waiting.append(due)
        self._dispatch()
        if self._waiting and self._connections < _MAX_OPEN_CONNECTIONS:
            self._connections += 1
            task = asyncio.get_running_loop().create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def drain(self, timeout_s: float) -> None:
        """Wait for the answers; what has none by then is an error."""
        give_up = perf_counter() + timeout_s
        while (self._in_flight or self._connecting) and perf_counter() < give_up:
            await asyncio.sleep(0.01)
        self._sender.close()
        while self._in_flight:
            await asyncio.sleep(0.01)
        for due in self._waiting:
            self._record.answered(due, perf_counter(), "no connection")

    async def _connect(self) -> None:
        connection = await self._sender.connect()
        if connection is None:
            self._connections -= 1
            if self._waiting:
                self._record.answered(self._waiting.popleft(), perf_counter(), "connection refused")
            return
        self._idle.append(connection)
        self._dispatch()

    def _dispatch(self) -> None:
        while self._waiting and self._idle:
            connection = self._idle.pop()
            if not connection.is_open:
                self._connections -= 1
                continue
            self._send(connection, self._waiting.popleft())

    def _send(self, connection: Connection, due: float) -> None:
        def answered(now: float, problem: str | None) -> None:
            self._in_flight -= 1
            self._record.answered(due, now, problem)
            self._idle.append(connection)
            self._dispatch()

        self._in_flight += 1
        connection.send(self._sender.next_request(), answered)


def main() -> None:
    """Read a plan from stdin, write its sample to stdout."""
    plan = Plan(**json.load(sys.stdin))
    json.dump(asdict(uvloop.run(run(plan))), sys.stdout)


if __name__ == "__main__":
    main()
