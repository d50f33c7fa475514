"""The service's own Valkey comes back when it dies, and leaves when its owner does."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from app.adapters.valkey import Valkey, ValkeyError
from app.event_commands import local_redis_url
from app.free_ports import free_port

DURABLE = {"appendonly": "yes", "appendfsync": "always"}
OWNER = """
import sys, time
from pathlib import Path
from app.adapters.valkey import Valkey
server = Valkey(Path(sys.argv[1]), int(sys.argv[2]), {})
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""


def until(holds):
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ask(server, *words):
    port = int(server.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(" ".join(words).encode() + b"\r\n")
        return connection.recv(1000)


def test_a_killed_server_comes_back_at_its_address_with_what_it_had_acknowledged(tmp_path):
    server = Valkey(tmp_path / "state", free_port(), DURABLE)
    server.start()
    try:
        assert local_redis_url(tmp_path) == server.url  # as `marquee events` finds it
        assert ask(server, "SET", "film", "42") == b"+OK\r\n"
        killed = server.pid
        os.kill(killed, signal.SIGKILL)
        until(lambda: server.pid not in (None, killed) and server.answers())
        assert ask(server, "GET", "film") == b"$2\r\n42\r\n"
    finally:
        server.stop()
    assert server.pid is None
    with pytest.raises(typer.Exit):
        local_redis_url(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of a parent's death")
def test_no_server_outlives_an_owner_that_was_killed(tmp_path):
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, tmp_path, str(free_port())], stdout=subprocess.PIPE, text=True
    )
    server = Path("/proc") / owner.stdout.readline().strip()
    assert (server / "stat").exists()
    owner.kill()
    owner.wait()
    until(lambda: not server.exists() or ") Z " in (server / "stat").read_text())


def test_a_server_that_cannot_start_says_so_in_one_line(tmp_path):
    server = Valkey(tmp_path, free_port(), {"no-such-option": "1"})
    with pytest.raises(ValkeyError, match="ended with status 1"):
        server.start()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ValkeyError):
        Valkey(file / "below", free_port(), {}).start()
