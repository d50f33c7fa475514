"""Ray for one command on one machine: without what watches, logs and scales a cluster.

A local Ray starts a dashboard, an autoscaler's monitor and a reader of logs, and Ray Data two
actors, for its page of statistics and for asking the autoscaler. Each is a Python process that
takes about a second of processor time to start and has nothing to do here: nobody looks, nothing
is logged to the driver, no machine can be added. Together they cost more than preparing ten
million events, so a Ray that this process starts for itself goes without.

There are no public settings for that: these are names inside the Ray that pyproject.toml pins. A
test counts the processes, so a new Ray that has moved them is noticed there, and here at once.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any


@contextmanager
def lean_start() -> Iterator[None]:
    """While the block starts a Ray, it starts no dashboard, monitor or reader of logs."""
    from ray._private import node, parameter, utils

    unwatched: dict[str, Any] = {"no_monitor": True, "include_log_monitor": False}
    lean = partial(parameter.RayParams, **unwatched)
    with ExitStack() as undo:
        undo.enter_context(_replaced(parameter, "RayParams", lean))
        undo.enter_context(_replaced(node.Node, "start_api_server", _nothing))
        # The agent that a node cannot be without, but not what it serves to the dashboard.
        undo.enter_context(_replaced(utils, "get_dashboard_dependency_error", _unwanted))
        yield


@contextmanager
def lean_data() -> Iterator[None]:
    """While the block runs, Ray Data starts no actors of its own."""
    from ray.data._internal import stats
    from ray.data._internal.execution import streaming_executor

    with ExitStack() as undo:
        for name in (
            "register_dataset_to_stats_actor",
            "update_execution_metrics",
            "update_iteration_metrics",
        ):
            undo.enter_context(_replaced(stats._StatsManager, name, _nothing))
        undo.enter_context(
            _replaced(streaming_executor, "create_cluster_autoscaler", _fixed_cluster)
        )
        yield


def _fixed_cluster(*_: Any, **__: Any) -> Any:
    """For Ray Data: the machines that there are, from the first moment on."""
    import ray
    from ray.data import ExecutionResources
    from ray.data._internal.cluster_autoscaler import ClusterAutoscaler

    class FixedCluster(ClusterAutoscaler):
        def try_trigger_scaling(self) -> None:
            pass

        def on_executor_shutdown(self) -> None:
            pass

        def get_total_resources(self) -> ExecutionResources:
            there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            total: ExecutionResources = ExecutionResources.from_resource_dict(there)
            return total

    return FixedCluster()


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _unwanted() -> ImportError:
    return ImportError("not wanted")


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name` is `value` in the block; KeyError when there is no such thing."""
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
