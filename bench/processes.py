"""Commands whose every process ends with them, also those that put themselves in the background."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

# A service under load needs some seconds to end by itself; what is left then is killed.
_INTERRUPT_GRACE_S = 30.0
_TERMINATE_GRACE_S = 5.0


@contextmanager
def ending_with_this_process() -> Iterator[None]:
    """Within it SIGTERM is as Ctrl-C, and on leaving it no descendant of this process is alive.

    Ctrl-C works even where a script started this process in the background, with it ignored.

    On Linux a descendant whose parent has ended becomes a child of this process, so that none is
    lost sight of. Elsewhere only the direct children's process groups are known.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    interrupts = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in interrupts]
    try:
        yield
    finally:
        # A second Ctrl-C must not cut the cleaning-up short.
        for number in interrupts:
            signal.signal(number, signal.SIG_IGN)
        end_descendants()
        for number, handler in zip(interrupts, before, strict=True):
            signal.signal(number, handler)


def start(
    command: Sequence[str], environment: Mapping[str, str], *, stdout: int
) -> subprocess.Popen[str]:
    """Start a command in a session of its own, so that Ctrl-C reaches it only through `end`."""
    return subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> None:
    """Interrupt a command, unless it has ended, as Ctrl-C would; kill its group if it stays."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_INTERRUPT_GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def end_descendants() -> None:
    """Terminate every descendant of this process, kill those that stay, and reap them."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _TERMINATE_GRACE_S
        for pid in descendants(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal_number)
        while descendants(os.getpid()) and time.monotonic() < deadline:
            _reap()
            time.sleep(0.05)


def descendants(pid: int) -> set[int]:
    """Children of the process, their children, and so on; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found: set[int] = set()
    unseen = [pid]
    while unseen:
        for child in children.get(unseen.pop(), []):
            found.add(child)
            unseen.append(child)
    return found


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
