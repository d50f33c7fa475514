"""Memory and processor time of a process and all it started, from /proc."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.processes import descendants


def tree_memory(pid: int) -> dict[str, Any]:
    """The tree's memory, MB: each process's share of the pages it has (PSS), so that pages which
    several share count once. Zero where there is no /proc."""
    by_process: Counter[str] = Counter()
    tree = {pid, *descendants(pid)}
    for member in tree:
        with suppress(OSError):  # it ended meanwhile
            by_process[process_name(member)] += _pss_bytes(member)
    return {
        "pss_mb": round(by_process.total() / 1e6),
        "processes": len(tree),
        "by_process": {name: round(size / 1e6) for name, size in by_process.most_common(12)},
    }


def cpu_seconds(pid: int) -> Counter[str]:
    """Processor time that the tree's living processes have used, by name."""
    used: Counter[str] = Counter()
    for member in {pid, *descendants(pid)}:
        with suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            ticks = int(fields[11]) + int(fields[12])
            used[process_name(member)] += ticks / os.sysconf("SC_CLK_TCK")  # type: ignore[assignment]
    return used


def process_name(pid: int) -> str:
    """What a process calls itself: a Serve replica as its deployment's name, a program as its file.

    OSError when it is gone.
    """
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    first = words[0].decode(errors="replace")
    if first.startswith("ray::ServeReplica:"):
        return first.rsplit(":", 1)[1].split(".")[0]
    if first.startswith("ray::"):
        return first[5:].split(".")[0]
    return Path(first).name or "unnamed"


def _pss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
