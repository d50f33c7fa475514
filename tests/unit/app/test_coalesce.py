"""Concurrent calls become batches, and every caller gets its own result."""

import asyncio

import pytest

from app.coalesce import Coalescer


class Doubling:
    """Doubles numbers, batch by batch, when told to go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()

    async def __call__(self, numbers):
        self.batches.append(list(numbers))
        await self.go.wait()
        return [2 * n for n in numbers]


async def test_an_idle_coalescer_starts_at_once_and_later_calls_share_the_next_batch():
    double = Doubling()
    coalescer = Coalescer(double, max_batch=10, max_in_flight=1)
    first = asyncio.create_task(coalescer.submit(1))
    await asyncio.sleep(0.01)
    rest = [asyncio.create_task(coalescer.submit(n)) for n in (2, 3, 4)]
    await asyncio.sleep(0.01)
    assert double.batches == [[1]]
    double.go.set()
    assert await asyncio.gather(first, *rest) == [2, 4, 6, 8]
    assert double.batches == [[1], [2, 3, 4]]


async def test_calls_of_one_turn_of_the_loop_share_a_batch_up_to_its_size():
    double = Doubling()
    double.go.set()
    coalescer = Coalescer(double, max_batch=3, max_in_flight=1)
    assert await asyncio.gather(*map(coalescer.submit, range(5))) == [0, 2, 4, 6, 8]
    assert double.batches == [[0, 1, 2], [3, 4]]


async def test_beside_a_running_batch_another_starts_only_with_its_fair_share():
    double = Doubling()
    coalescer = Coalescer(double, max_batch=10, max_in_flight=2)
    calls = []
    for n in range(2):  # one after the other
        calls.append(asyncio.create_task(coalescer.submit(n)))
        await asyncio.sleep(0.01)
    calls += [asyncio.create_task(coalescer.submit(n)) for n in range(2, 5)]
    await asyncio.sleep(0.01)
    assert double.batches == [[0], [1]]  # three wait for a slot
    double.go.set()
    await asyncio.gather(*calls)
    assert sorted(map(len, double.batches[2:])) == [1, 2]  # dealt out evenly


async def test_a_few_who_come_together_are_not_dealt_out():
    double = Doubling()
    coalescer = Coalescer(double, max_batch=100, max_in_flight=2)
    calls = [asyncio.create_task(coalescer.submit(n)) for n in range(6)]
    await asyncio.sleep(0.01)
    assert double.batches == [[0, 1, 2, 3, 4, 5]]
    double.go.set()
    await asyncio.gather(*calls)


async def test_a_smaller_rest_waits_beside_a_big_batch_and_goes_when_it_ends():
    double = Doubling()
    coalescer = Coalescer(double, max_batch=2, max_in_flight=2)
    calls = [asyncio.create_task(coalescer.submit(n)) for n in range(3)]
    await asyncio.sleep(0.01)
    assert double.batches == [[0, 1]]
    double.go.set()
    assert await asyncio.gather(*calls) == [0, 2, 4]
    assert double.batches == [[0, 1], [2]]


async def test_no_more_batches_run_than_allowed():
    double = Doubling()
    coalescer = Coalescer(double, max_batch=1, max_in_flight=2)
    calls = [asyncio.create_task(coalescer.submit(n)) for n in range(4)]
    await asyncio.sleep(0.01)
    assert double.batches == [[0], [1]]
    double.go.set()
    assert await asyncio.gather(*calls) == [0, 2, 4, 6]


async def test_a_failing_batch_fails_its_own_callers_only():
    async def handle(numbers):
        if 1 in numbers:
            raise RuntimeError("one is not liked")
        return numbers

    coalescer = Coalescer(handle, max_batch=1, max_in_flight=1)
    results = await asyncio.gather(*map(coalescer.submit, [0, 1, 2]), return_exceptions=True)
    assert results[0] == 0
    assert isinstance(results[1], RuntimeError)
    assert results[2] == 2


async def test_a_handler_that_loses_results_is_an_error_not_a_hang():
    async def handle(numbers):
        return []

    coalescer = Coalescer(handle, max_batch=2, max_in_flight=1)
    with pytest.raises(RuntimeError, match="0 results for a batch of 1"):
        await coalescer.submit(1)


async def test_a_caller_that_goes_away_does_not_disturb_the_others():
    double = Doubling()
    coalescer = Coalescer(double, max_batch=4, max_in_flight=1)
    gone = asyncio.create_task(coalescer.submit(1))
    stays = asyncio.create_task(coalescer.submit(2))
    await asyncio.sleep(0.01)
    gone.cancel()
    double.go.set()
    assert await stays == 4


def sharing(handle):
    """Numbers are the same when their last digits are."""
    return Coalescer(handle, max_batch=3, max_in_flight=1, same=lambda n: n % 10)


async def test_who_asks_the_same_shares_the_answer_of_whoever_waits_or_is_served():
    double = Doubling()
    coalescer = sharing(double)
    served = [asyncio.create_task(coalescer.submit(n)) for n in (1, 11)]
    await asyncio.sleep(0.01)
    waiting = [asyncio.create_task(coalescer.submit(n)) for n in (2, 21, 12)]
    await asyncio.sleep(0.01)
    double.go.set()
    assert await asyncio.gather(*served, *waiting) == [2, 2, 4, 2, 4]
    assert double.batches == [[1], [2]]


async def test_an_answer_that_was_given_is_not_shared_with_who_comes_later():
    double = Doubling()
    double.go.set()
    coalescer = sharing(double)
    assert [await coalescer.submit(1), await coalescer.submit(11)] == [2, 22]
    assert double.batches == [[1], [11]]


async def test_whoever_shares_may_go_away_without_the_others():
    double = Doubling()
    coalescer = sharing(double)
    first, second, third = [asyncio.create_task(coalescer.submit(n)) for n in (1, 11, 21)]
    await asyncio.sleep(0.01)
    first.cancel()
    third.cancel()
    double.go.set()
    assert await second == 2


async def test_a_failure_is_shared_and_the_next_call_tries_again():
    asked = []

    async def handle(numbers):
        asked.append(list(numbers))
        await asyncio.sleep(0)
        if len(asked) == 1:
            raise RuntimeError("not now")
        return numbers

    coalescer = sharing(handle)
    results = await asyncio.gather(*map(coalescer.submit, [1, 11]), return_exceptions=True)
    assert [str(error) for error in results] == ["not now", "not now"]
    assert await coalescer.submit(21) == 21
    assert asked == [[1], [21]]


async def test_whoever_shares_does_not_count_for_the_size_of_batches():
    double = Doubling()
    coalescer = sharing(double)
    calls = [asyncio.create_task(coalescer.submit(n)) for n in (1, 11, 21, 2, 3)]
    double.go.set()
    assert await asyncio.gather(*calls) == [2, 2, 2, 4, 6]
    assert double.batches == [[1, 2, 3]]
