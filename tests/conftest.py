"""What every test may use."""

import os
from collections.abc import Iterator

# Read by Ray as it is imported, and inherited by every process that a test starts.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import pytest  # noqa: E402

S3_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """One Ray for all tests that need it: four logical CPUs, whatever the machine has.

    So Train's workers and Data's tasks fit beside each other on two cores.
    """
    import ray

    with pytest.MonkeyPatch.context() as patch:  # what it starts keeps this, for moto's S3
        for name, value in S3_CREDENTIALS.items():
            patch.setenv(name, value)
        ray.init(
            address="local",
            num_cpus=4,
            object_store_memory=150 * 1024 * 1024,
            include_dashboard=False,
            log_to_driver=False,
        )
    yield
    ray.shutdown()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch with one thread: small matrices are slower with more, and sums the same each time."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def s3_endpoint(_s3_server: str) -> Iterator[str]:
    """An S3 server, moto's, named by the environment as long as a module's tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", _s3_server)
        for name, value in S3_CREDENTIALS.items():
            patch.setenv(name, value)
        yield _s3_server
