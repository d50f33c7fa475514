"""Ports for what this process starts."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_FIRST = 20_000  # below, Ray gives ports to workers
_TRIES = 100
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_RANGE_BEGINS = 32_768  # where Linux does not say


def free_port() -> int:
    """A TCP port that nobody has now.

    It lies below those that the kernel gives to outgoing connections, of which one might otherwise
    take it before whoever is to listen there has started.
    """
    with socket.socket() as probe:
        for port in random.SystemRandom().sample(range(_FIRST, _outgoing_from()), _TRIES):
            try:
                probe.bind(("", port))
                return port
            except OSError:
                continue
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _outgoing_from() -> int:
    """The first port of outgoing connections, but no less than leaves some to choose from."""
    try:
        first = int(_RANGE.read_text().split()[0])
    except (OSError, ValueError):
        first = _RANGE_BEGINS
    return max(first, _FIRST + 10 * _TRIES)
