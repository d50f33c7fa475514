import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from bench.load import Plan, measure, percentile, run

Answer = Callable[[int], tuple[bytes, float]]


def http(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


class Server:
    """Answers request number n with `answer(n)`: the bytes, and the seconds to wait before."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.requests: list[str] = []
        self.connections = 0
        self.most_in_flight = 0
        self._in_flight = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head.decode().split(" ")[1])
                self._in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self._in_flight)
                data, wait_s = self._answer(len(self.requests))
                await asyncio.sleep(wait_s)
                self._in_flight -= 1
                writer.write(data)
                if not data:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[tuple[Server, Plan]]:
    server = Server(answer)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    plan = Plan(
        host="127.0.0.1",
        port=listener.sockets[0].getsockname()[1],
        requests=["GET /a HTTP/1.1\r\nHost: x\r\n\r\n", "GET /b HTTP/1.1\r\nHost: x\r\n\r\n"],
        order=[0, 0, 1],
        duration_s=0.2,
        clients=1,
    )
    try:
        yield server, plan
    finally:
        listener.close()


async def test_a_closed_loop_keeps_one_request_per_client_in_flight_on_kept_connections() -> None:
    async with serving(lambda n: (http(b"{}"), 0.005)) as (server, plan):
        sample = await run(replace(plan, clients=4))
    assert sample.errors == 0
    assert sample.answers > 0 and sample.rps > 0
    assert server.connections == 4
    assert server.most_in_flight == 4


async def test_requests_are_sent_in_the_plan_s_order() -> None:
    async with serving(lambda n: (http(b"{}"), 0.0)) as (server, plan):
        await run(plan)
    assert server.requests[:6] == ["/a", "/a", "/b", "/a", "/a", "/b"]


async def test_a_plan_that_is_carried_out_once_ends_with_its_last_request() -> None:
    async with serving(lambda n: (http(b"{}"), 0.001)) as (server, plan):
        sample = await run(replace(plan, order=[0, 1] * 20, once=True, duration_s=60.0))
    assert sample.answers == len(server.requests) == 40


async def test_an_answer_in_pieces_is_one_answer() -> None:
    async with serving(lambda n: (http(b"x" * 300_000 + b"end"), 0.0)) as (_, plan):
        sample = await run(replace(plan, must_contain="xend"))
    assert sample.errors == 0 and sample.answers > 0


async def test_a_status_other_than_200_is_an_error_and_not_a_latency() -> None:
    async with serving(lambda n: (http(b"later", b"503 Busy"), 0.001)) as (_, plan):
        sample = await run(plan)
    assert sample.errors > 0 and sample.answers == 0 and sample.rps == 0
    assert sample.p50_ms is None
    assert sample.first_error is not None and "503 Busy" in sample.first_error


async def test_an_answer_without_the_needed_text_is_an_error() -> None:
    async with serving(lambda n: (http(b'{"degraded":["rank"]}'), 0.001)) as (_, plan):
        sample = await run(replace(plan, must_contain='"degraded":[]'))
    assert sample.errors > 0 and sample.answers == 0


async def test_an_answer_without_a_length_is_an_error() -> None:
    async with serving(lambda n: (b"HTTP/1.1 200 OK\r\n\r\n", 0.001)) as (_, plan):
        sample = await run(plan)
    assert sample.first_error == "an answer without Content-Length"


async def test_a_client_whose_connection_is_closed_counts_an_error_and_connects_again() -> None:
    async with serving(lambda n: (b"" if n == 3 else http(b"{}"), 0.001)) as (server, plan):
        sample = await run(plan)
    assert sample.errors == 1
    assert server.connections == 2 and len(server.requests) > 4


async def test_an_answer_that_announces_the_connection_s_end_is_no_error() -> None:
    last = http(b"{}").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with serving(lambda n: (last if n == 3 else http(b"{}"), 0.001)) as (server, plan):
        sample = await run(plan)
    assert sample.errors == 0
    assert server.connections == 2 and len(server.requests) > 4


async def test_a_refused_connection_is_an_error_in_both_loops() -> None:
    async with serving(lambda n: (http(b"{}"), 0.0)) as (_, plan):
        pass
    assert (await run(plan)).first_error == "connection refused"
    assert (await run(replace(plan, clients=None, arrivals_per_s=100.0))).errors > 0


async def test_an_open_loop_charges_a_stall_to_every_request_that_it_delays() -> None:
    # The server answers nothing for 150 ms; who was due meanwhile waited for the rest of it.
    stall_s, rate = 0.15, 200.0
    first_at: list[float] = []

    def answer(n: int) -> tuple[bytes, float]:
        now = asyncio.get_running_loop().time()
        first_at.append(now)
        return http(b"{}"), max(0.0, first_at[0] + stall_s - now)

    async with serving(answer) as (_, plan):
        sample = await run(replace(plan, clients=None, arrivals_per_s=rate, duration_s=0.3))
    assert sample.errors == 0
    # About half of the requests were due in the stall. A closed loop would have met it once.
    assert sample.p99_ms is not None and sample.p99_ms > 100
    assert sample.p95_ms is not None and sample.p95_ms > 70


async def test_an_open_loop_sends_at_its_rate_whatever_the_answers_take() -> None:
    async with serving(lambda n: (http(b"{}"), 0.3)) as (server, plan):
        sample = await run(replace(plan, clients=None, arrivals_per_s=100.0, duration_s=0.5))
    assert sample.answers == len(server.requests)
    assert 25 <= sample.answers <= 80  # Poisson(50), six standard deviations
    assert server.most_in_flight > 10


async def test_load_before_the_measured_time_is_not_counted() -> None:
    def answer(n: int) -> tuple[bytes, float]:
        return (http(b"", b"503 Starting") if n <= 5 else http(b"{}")), 0.0

    async with serving(answer) as (_, plan):
        sample = await run(replace(plan, warmup_s=0.3))
    assert sample.errors == 0 and sample.answers > 0


async def test_measure_runs_the_plan_in_a_process_of_its_own() -> None:
    async with serving(lambda n: (http(b"{}"), 0.0)) as (_, plan):
        sample = await asyncio.to_thread(measure, plan)
    assert sample.errors == 0 and sample.answers > 0


@pytest.mark.parametrize(
    ("q", "expected"), [(0.5, 2.0), (0.51, 3.0), (0.95, 4.0), (1.0, 4.0), (0.0, 1.0)]
)
def test_a_percentile_is_a_value_that_was_measured(q: float, expected: float) -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], q) == expected


def test_the_percentile_of_nothing_is_nothing() -> None:
    assert percentile([], 0.99) is None


def test_a_plan_is_either_closed_or_open() -> None:
    with pytest.raises(ValueError, match="either"):
        Plan(host="", port=1, requests=["x"], order=[0], duration_s=1.0)
    with pytest.raises(ValueError, match="either"):
        Plan("", 1, ["x"], [0], 1.0, clients=1, arrivals_per_s=1.0)
    with pytest.raises(ValueError, match="needs requests"):
        Plan("", 1, [], [], 1.0, clients=1)
