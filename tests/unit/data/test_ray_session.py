"""How many CPUs a local Ray is told of."""

import os

import pytest

from training.data.ray_session import usable_cpus


@pytest.mark.parametrize(("quota", "most"), [("50000 100000", 1), ("max 100000", 10**6)])
def test_a_containers_limit_bounds_the_cpus(tmp_path, quota, most):
    file = tmp_path / "cpu.max"
    file.write_text(f"{quota}\n")
    assert usable_cpus(file) == min(most, len(os.sched_getaffinity(0)))


def test_without_cgroups_all_cpus_count(tmp_path):
    assert usable_cpus(tmp_path / "none") == len(os.sched_getaffinity(0))
