"""The ramp: each step's load, and what was seen meanwhile."""

import threading

import pytest

from bench import ramp as ramp_module
from bench.load import Sample
from bench.ramp import ramp
from bench.ramp_commands import clients_of, draw
from training.errors import UserError


@pytest.fixture
def plans(monkeypatch):
    """Plans that were carried out; the second fails two requests."""
    carried_out = []

    def measure(plan):
        carried_out.append(plan)
        return Sample(10.0, 1.0, 2.0, 3.0, 2 * (len(carried_out) == 2), 20, None)

    monkeypatch.setattr(ramp_module, "measure", measure)
    return carried_out


def test_each_step_is_loaded_in_turn_and_failures_are_summed(plans):
    result = ramp("http://localhost:81", [2, 64, 2], 5.0, dict)
    assert [(plan.clients, plan.port, plan.duration_s) for plan in plans] == [
        (2, 81, 5.0),
        (64, 81, 5.0),
        (2, 81, 5.0),
    ]
    assert [step["clients"] for step in result["steps"]] == [2, 64, 2]
    assert result["errors"] == 2


def test_the_timeline_has_what_was_observed_and_the_load_at_that_time(monkeypatch):
    looked_twice = threading.Event()
    seen = []

    def observe():
        seen.append(len(seen))
        if len(seen) > 1:
            looked_twice.set()
        return {"nodes": seen[-1]}

    def measure(plan):
        assert looked_twice.wait(30)
        return Sample(10.0, 1.0, 2.0, 3.0, 0, 20, None)

    monkeypatch.setattr(ramp_module, "measure", measure)
    timeline = ramp("http://localhost", [7], 1.0, observe, every_s=0.01)["timeline"]
    assert [point["nodes"] for point in timeline] == seen
    assert timeline[1]["clients"] == 7


def test_the_timeline_is_drawn(tmp_path):
    point = {"at_s": 0.0, "clients": 1, "replicas": {"Gateway": 1}, "nodes": 1}
    draw([point, point | {"at_s": 1.0, "clients": 9}], tmp_path / "plot.svg")
    assert b"<svg" in (tmp_path / "plot.svg").read_bytes()


@pytest.mark.parametrize("text", ["", "a", "1,0"])
def test_clients_that_are_no_numbers_are_refused(text):
    with pytest.raises(UserError, match="--clients"):
        clients_of(text)


def test_the_local_cluster_runs_the_charts_own_config():
    import yaml

    from bench.autoscale import MANIFEST, _chart_environment

    environment = _chart_environment(yaml.safe_load(MANIFEST.read_text()))
    assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert environment["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    assert "MARQUEE_TOPOLOGY" in environment
    assert not any(name.startswith(("REDIS", "QDRANT", "MLFLOW")) for name in environment)
