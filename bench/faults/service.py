"""The served product as a process of its own, seen from outside: its parts by name, to be hurt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

from app.free_ports import free_port
from bench import processes
from training.errors import UserError

HOST = "127.0.0.1"
_READY_TIMEOUT_S = 180.0


class Served:
    """A context manager around a command that serves a store, `marquee serve` or another."""

    def __init__(
        self,
        store: Path,
        state_dir: Path,
        *,
        command: Sequence[str],
        environment: Mapping[str, str],
    ) -> None:
        self.port = free_port()
        self._state_dir = state_dir
        self._environment = {
            "MARQUEE_POLL_S": "0.5",
            "MARQUEE_ACCESS_LOG": "0",
            "MARQUEE_RATE_LIMIT_PER_MINUTE": "0",  # a few users stand for many
            **environment,
        }
        self._command = [
            *command,
            *("--store", str(store), "--port", str(self.port), "--state-dir", str(state_dir)),
        ]

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        """Start it and wait until it is ready. Raises UserError."""
        self._process = processes.start(self._command, self._environment, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while True:
            try:
                urlopen(f"{self.url}/ready", timeout=5).close()
                return self
            except (URLError, OSError) as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    processes.end(self._process)
                    raise UserError(f"the service does not start: {error}") from None
                time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        processes.end(self._process)

    def replica(self, deployment: str) -> list[int]:
        """The processes of a deployment's replicas, such as "Embed"."""
        return self.named(f"ServeReplica:marquee:{deployment}")

    def valkey(self, name: str) -> int:
        """The process of the Valkey for "state" or "cache"."""
        (pid,) = (
            pid
            for pid in self.named("valkey-server")
            if Path(f"/proc/{pid}/cwd").readlink() == (self._state_dir / name).absolute()
        )
        return pid

    def valkey_port(self, name: str) -> int:
        """Where that Valkey listens."""
        # It rewrites its command line to "valkey-server 127.0.0.1:PORT".
        return int(command_line(self.valkey(name)).rsplit(":", 1)[1])

    def named(self, text: str) -> list[int]:
        """Descendants with this text in their command line, ascending."""
        return sorted(
            pid
            for pid in processes.descendants(self._process.pid)
            if text in command_line(pid) and "PR_SET_PDEATHSIG" not in command_line(pid)
        )


def resident_bytes(pids: Sequence[int]) -> int:
    """Memory of these processes."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = 0
    for pid in pids:
        with suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
    return total


def kill(pids: Sequence[int]) -> None:
    """As the kernel does it when memory ends."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def marquee_serve() -> list[str]:
    """The command of the product."""
    return [str(Path(sys.executable).with_name("marquee")), "serve"]


def command_line(pid: int) -> str:
    """The process's command line, as it may have rewritten it; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""
