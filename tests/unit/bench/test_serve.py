import json

import numpy as np
import pytest

from bench.load import Sample
from bench.ramp_commands import clients_of
from bench.serve import http_request, machine, median_figures, zipf_order
from training.errors import UserError


def sample(rps, errors=0, first_error=None, p50_ms=1.0):
    return Sample(rps, p50_ms, 2.0, 3.0, errors, 10, first_error)


def test_a_cell_is_the_median_of_its_rounds_and_the_sum_of_their_errors():
    figures = median_figures([sample(10.0), sample(30.0, 2, "503"), sample(20.0, 1, "404")])
    assert figures == {
        "rps": 20.0, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0, "errors": 3,
        "first_error": "503",
    }  # fmt: skip


def test_a_round_without_answers_has_no_latency():
    assert median_figures([sample(0.0, p50_ms=None)])["p50_ms"] is None


def test_users_ask_in_proportion_to_one_over_their_rank():
    n_users, length = 50, 200_000
    counts = np.sort(np.bincount(zipf_order(n_users, length, seed=1), minlength=n_users))[::-1]
    expected = 1 / np.arange(1, n_users + 1)
    expected *= length / expected.sum()
    assert np.abs(counts - expected).max() < 6 * np.sqrt(expected[0])
    assert np.array_equal(zipf_order(n_users, 10, seed=1), zipf_order(n_users, 10, seed=1))


def test_a_prepared_request_is_whole_and_only_the_uncached_one_refuses_the_cache():
    head, _, body = http_request("/recommend", "zoé", cached=False).partition("\r\n\r\n")
    assert head.startswith("POST /recommend HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    assert "Cache-Control: no-cache" in head
    assert f"Content-Length: {len(body.encode())}" in head
    assert json.loads(body) == {"user_id": "zoé", "num_recommendations": 10}
    assert "Cache-Control" not in http_request("/recommend", 7, cached=True)


def test_the_machine_is_described():
    assert {"cpus", "cpu", "memory_gib", "python", "ray"} <= machine().keys()


@pytest.mark.parametrize("text", ["", "0", "1,,2", "many", "4,-1"])
def test_clients_that_are_no_list_of_numbers_are_refused(text):
    with pytest.raises(UserError, match="--clients"):
        clients_of(text)
    assert clients_of("1,16") == (1, 16)
