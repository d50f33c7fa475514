"""The load tests' shapes, and what is read of Locust's files."""

import csv

import pytest

from bench.load_scenarios import SCENARIOS
from bench.load_test import _counts, _read, _second, _totals, draw
from training.errors import UserError


@pytest.mark.parametrize(
    ("name", "second", "rate"),
    [("normal", 0, 50), ("normal", 299, 50), ("peak", 60, 150), ("stress", 0, 50),
     ("stress", 179, 300), ("autoscale", 45, 200)],
)  # fmt: skip
def test_a_scenario_asks_for_its_rate_until_it_ends(name, second, rate):
    scenario = SCENARIOS[name]
    assert scenario.rate_at(second, scenario.duration_s) == rate
    assert scenario.rate_at(scenario.duration_s, scenario.duration_s) is None


def test_a_shorter_run_has_the_same_steps():
    assert [SCENARIOS["stress"].rate_at(second, 6) for second in range(7)] == [
        50, 100, 150, 200, 250, 300, None,
    ]  # fmt: skip


def test_locusts_rows_become_figures_and_a_picture(tmp_path):
    row = {
        "Timestamp": "100", "User Count": "50", "Requests/s": "49.5", "Failures/s": "0.5",
        "Request Count": "1000", "Failure Count": "1", "50%": "4", "95%": "9", "99%": "20",
    }  # fmt: skip
    file = tmp_path / "stats.csv"
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, row)
        writer.writeheader()
        writer.writerow(row)
        writer.writerow(row | {"Timestamp": "101", "50%": "N/A", "95%": "N/A", "99%": "N/A"})
    first, second = _read(file)
    assert _totals(first) == {
        "requests": 1000, "failures": 1, "per_s": 49.5, "p50_ms": 4, "p95_ms": 9, "p99_ms": 20,
    }  # fmt: skip
    timeline = [_second(first), _second(second)]
    assert timeline[0]["answered_per_s"] == 49.0
    assert timeline[1]["p99_ms"] is None
    figures = {"timeline": timeline, "scenario": "peak", "machine": {"cpus": 2}}
    draw(figures, tmp_path / "run.svg")
    assert (tmp_path / "run.svg").read_text().startswith("<?xml")
    cluster = [{"at_s": at, "replicas": {"Rank": 1 + at}, "nodes": 1} for at in (0, 1)]
    draw(figures | {"cluster": cluster}, tmp_path / "cluster.svg")
    assert "replicas, nodes" in (tmp_path / "cluster.svg").read_text()


def test_failures_are_counted_by_what_they_say():
    rows = [{"Error": "429", "Occurrences": "2"}, {"Error": "429", "Occurrences": "3"}]
    assert _counts(rows) == {"429": 5}


def test_a_run_without_figures_is_a_users_error(tmp_path):
    with pytest.raises(UserError, match="nothing was asked"):
        _read(tmp_path / "absent.csv")
