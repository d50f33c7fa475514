"""Ray for as long as a command needs it."""

import gc
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from math import ceil
from pathlib import Path
from typing import Any

from training.data.lean_ray import lean_data, lean_start

OBJECT_STORE_LEAST_BYTES = 256 * 2**20
OBJECT_STORE_SHARE = 0.3  # of the machine's memory, at most
_LAST_WORDS_S = 10.0  # that a thread of Ray Data's may take to finish
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@contextmanager
def ray_session(
    object_store_bytes: int, cpus: int | None = None, *, lean: bool = False
) -> Iterator[int]:
    """A Ray to run on; yields its number of CPUs.

    A Ray that runs in this process is used and left running. RAY_ADDRESS names a cluster to
    join (`ray job submit` sets it). Otherwise a local one is started and ended, with an object
    store of about `object_store_bytes` and `cpus` CPUs, by default the machine's. A `lean` one is
    for Ray Data's tasks alone: see lean_ray.py.
    """
    # Without this, a local Ray turns on token authentication and leaves a token in the home.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    # A training's worker waits after each epoch until Ray Train's controller has looked, by default
    # for up to 2 s: longer than an epoch of a small data set.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    import ray

    started = not ray.is_initialized()
    joins = bool(os.environ.get("RAY_ADDRESS"))
    lean = lean and started and not joins
    if started:
        with lean_start() if lean else nullcontext():
            ray.init(
                log_to_driver=False,
                logging_level=logging.WARNING,
                **({} if joins else _local(object_store_bytes, cpus)),
            )
    try:
        with lean_data() if lean else nullcontext():
            yield int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
    finally:
        if started:
            _end()


def _end() -> None:
    """End Ray when nothing of it is in use any more.

    A thread of Ray Data's that still finishes, or an object reference that the garbage collector
    meets in whatever thread while Ray shuts down, would ask a Ray that is gone, which ends the
    whole process with one line of C++.
    """
    import ray

    for thread in threading.enumerate():
        if thread.name.startswith("StreamingExecutor"):
            thread.join(_LAST_WORDS_S)
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()


def _local(object_store_bytes: int, cpus: int | None) -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "address": "local",  # beside a cluster that happens to run on this machine
        "num_cpus": cpus or max(usable_cpus(), 2),  # one alone could starve Ray Data
        "include_dashboard": False,
        "object_store_memory": int(
            min(max(object_store_bytes, OBJECT_STORE_LEAST_BYTES), memory * OBJECT_STORE_SHARE)
        ),
    }


def usable_cpus(quota_file: Path = _CPU_QUOTA) -> int:
    """CPUs that this process may use: those it may run on, within a container's limit.

    Ray starts a process for each, so a small container on a big machine must not count all.
    """
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = quota_file.read_text().split()
        return min(cpus, ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max": no limit
        return cpus
