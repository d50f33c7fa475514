"""How many CPUs a local Ray is told of, and what it waits for before it ends."""

import gc
import os
import threading

import pytest
import ray

from training.data.ray_session import ray_session, usable_cpus


@pytest.mark.parametrize(("quota", "most"), [("50000 100000", 1), ("max 100000", 10**6)])
def test_a_containers_limit_bounds_the_cpus(tmp_path, quota, most):
    file = tmp_path / "cpu.max"
    file.write_text(f"{quota}\n")
    assert usable_cpus(file) == min(most, len(os.sched_getaffinity(0)))


def test_without_cgroups_all_cpus_count(tmp_path):
    assert usable_cpus(tmp_path / "none") == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("named", "asked"), [("", "local"), ("ray://head:10001", None)])
def test_a_cluster_is_joined_only_where_ray_address_names_it(named, asked, monkeypatch):
    """Ray itself would join one that it finds on this machine, and refuse `num_cpus`."""
    seen = {}
    monkeypatch.setenv("RAY_ADDRESS", named)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", seen.update)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2})
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with ray_session(2**20) as cpus:
        assert cpus == 2 and seen.get("address") == asked and ("num_cpus" in seen) == bool(asked)


def test_ray_ends_when_its_threads_have_and_nothing_is_collected_meanwhile(monkeypatch):
    asked, seen = threading.Event(), {}
    late = threading.Thread(target=asked.wait, name="StreamingExecutor-0", daemon=True)

    def end():
        seen.update(thread=late.is_alive(), collects=gc.isenabled())

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2})
    monkeypatch.setattr(ray, "shutdown", end)
    with ray_session(2**20):
        late.start()
        threading.Timer(0.05, asked.set).start()
    assert seen == {"thread": False, "collects": False}
    assert gc.isenabled()
