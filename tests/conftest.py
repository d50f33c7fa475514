"""What every test may use."""

import os
from collections.abc import Iterator

# Read by Ray as it is imported, and inherited by every process that a test starts.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """One Ray for all tests that need it: four logical CPUs, whatever the machine has.

    So Train's workers and Data's tasks fit beside each other on two cores.
    """
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=150 * 1024 * 1024,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()
