"""The benchmark as a user runs it, on a tiny bundle and for moments."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundles import tiny_bundle

pytestmark = pytest.mark.integration

MARQUEE = Path(sys.executable).with_name("marquee")


def bench(*arguments):
    return subprocess.run(
        [MARQUEE, "bench", "serve", *map(str, arguments)],
        capture_output=True, text=True, timeout=300, env=os.environ,
    )  # fmt: skip


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    store = tmp_path_factory.mktemp("bench") / "store"
    (store / "bundles").mkdir(parents=True)
    tiny_bundle(store / "bundles" / "1")
    (store / "production.json").write_text(
        '{"version": "1", "previous": [], "changed_at": "2026-01-01"}'
    )
    done = bench(
        "--store", store, "--duration-s", 0.5, "--rounds", 1, "--clients", "4",
        "--rate", 20, "--stress-rate", 40, "--no-compare", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_mode_answers_at_every_load_without_an_error(figures):
    assert figures["closed"].keys() == {"empty", "uncached", "cached"}
    cells = [cell for by_clients in figures["closed"].values() for cell in by_clients.values()]
    assert len(cells) == 3
    for cell in [*cells, figures["open"]["20"]]:
        assert cell["errors"] == 0, cell
        assert cell["rps"] > 0
        assert cell["p50_ms"] <= cell["p95_ms"] <= cell["p99_ms"]


def test_the_ratios_are_shares_of_the_empty_endpoint_s_throughput(figures):
    empty, uncached = figures["closed"]["empty"]["4"], figures["closed"]["uncached"]["4"]
    assert figures["ratios"]["uncached_4"] == pytest.approx(
        uncached["rps"] / empty["rps"], abs=0.001
    )


def test_uncached_reads_nothing_from_the_cache_and_cached_everything(figures):
    assert figures["cache_hit_rate"] == {"uncached": 0.0, "cached": 1.0}
    assert all(0 < share <= 1 for share in figures["computed_of_uncached"].values())


def test_a_realistic_stream_is_answered_whole_and_partly_from_the_cache(figures):
    stream = figures["realistic"]
    assert stream["errors"] == 0, stream
    assert stream["degraded_batches"] == 0
    assert 0 < stream["cache_hit_rate"] < 1
    assert stream["of_empty"] > 0


def test_stages_memory_and_both_open_loops_are_in_the_document(figures):
    assert figures["open"].keys() == {"20", "40"}
    assert figures["stages"].keys() == {"1", "16", "64"}
    for costs in figures["stages"].values():
        assert costs.keys() == {"history_ms", "embed_ms", "retrieve_ms", "rank_ms", "slate_ms"}
        assert all(cost > 0 for cost in costs.values())
    assert {"Gateway", "Embed", "Retrieve", "Rank"} <= figures["memory"]["by_process"].keys()


def test_a_store_without_a_version_is_one_line_and_status_2(tmp_path):
    done = bench("--store", tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0 and "error:" in done.stderr
    assert "Traceback" not in done.stderr
