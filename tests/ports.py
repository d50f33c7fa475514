"""Ports for the servers that tests start."""

import socket


def free_port() -> int:
    """A TCP port of this machine that nobody has now.

    The system hands them out in turn, so that two test processes are not given the same one.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
