"""Running a function on many rows as Ray Data tasks, a few rows to a task."""

import logging
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Any

import pyarrow as pa

from training.data.memory import keep_freed_memory

ROWS_PER_TASK = 5  # at most: a task is to be done within seconds
TASKS_PER_CPU = 8  # at least, so that in the end no CPU waits long for another one's last task

Task = Callable[[pa.Table, Any], pa.Table]
"""Makes a table with a column `result` of pickled results of rows and a plan."""


def run_tasks(task: Task, rows: list[dict[str, int]], plan: Any) -> Iterator[Any]:
    """Results of `task` on each row, as they come. Needs a Ray that is running."""
    if not rows:
        return
    import ray
    import ray.data

    shared = ray.put(plan)  # shipped to each worker once, not with each task
    cpus = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]

    def call(batch: pa.Table) -> pa.Table:
        keep_freed_memory()
        return task(batch, ray.get(shared))

    with _quiet():
        items = ray.data.from_items(rows, override_num_blocks=n_tasks(len(rows), cpus))
        results = items.map_batches(call, batch_size=None, batch_format="pyarrow")
        for batch in results.iter_batches(batch_size=None, batch_format="pyarrow"):
            assert isinstance(batch, pa.Table)
            for pickled in batch["result"].to_pylist():
                yield pickle.loads(pickled)


def n_tasks(rows: int, cpus: int) -> int:
    """Of ROWS_PER_TASK rows, or of fewer so that each CPU gets TASKS_PER_CPU."""
    return -(-rows // min(ROWS_PER_TASK, -(-rows // (TASKS_PER_CPU * cpus))))


class HeadStart:
    """Runs `task` on one row after another in this process while Ray starts.

    Ray takes some seconds for that, mostly waiting. In the block `threads` threads take rows from
    the first on, until `leave_rest` gives what is left to someone else.
    """

    def __init__(
        self, task: Task, rows: list[dict[str, int]], plan: Any, *, threads: int = 1
    ) -> None:
        self._task, self._rows, self._plan = task, rows, plan
        self._taken, self._end = 0, len(rows)
        self._lock = Lock()
        self._n_threads, self._threads = threads, ThreadPoolExecutor(threads)

    def __enter__(self) -> "HeadStart":
        self._results = [self._threads.submit(self._run) for _ in range(self._n_threads)]
        return self

    def __exit__(self, *_: object) -> None:
        self.leave_rest()
        self._threads.shutdown()

    def leave_rest(self) -> list[dict[str, int]]:
        """The rows that it has not begun and from now on will not."""
        with self._lock:
            self._end = self._taken
            return self._rows[self._taken :]

    def results(self) -> list[Any]:
        """Those of the rows that it began, once all are done; raises what the task raised."""
        return [found for results in self._results for found in results.result()]

    def _run(self) -> list[Any]:
        found: list[Any] = []
        while (row := self._take()) is not None:
            batch = self._task(pa.Table.from_pylist([row]), self._plan)
            found += map(pickle.loads, batch["result"].to_pylist())
        return found

    def _take(self) -> dict[str, int] | None:
        with self._lock:
            if self._taken >= self._end:
                return None
            self._taken += 1
            return self._rows[self._taken - 1]


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data without its own bars and log lines: the caller tells how far it is."""
    from ray.data import DataContext

    context, logger = DataContext.get_current(), logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        logger.setLevel(level)
