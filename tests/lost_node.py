"""Trains on two Ray nodes of this machine, of which one dies on the way.

    python -m tests.lost_node DATA OUT RECIPE EPOCHS SEED

Two workers begin. After the third epoch the raylet of the second node is killed, which takes its
workers along; the first node has a CPU for one. Prints how many workers there were after each
epoch, as JSON, last.
"""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import ray
from ray.cluster_utils import Cluster

from training.train import Request, train

KILLED_AFTER = 3
STORE_BYTES = 150 * 2**20
# How soon the death of a node is known; by default half a minute or more.
QUICK = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 5,
}


# How long Ray Train waits for room for all workers before it makes do with fewer; by default 60 s.
os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "5"


def main(data: str, out: str, recipe: str, epochs: str, seed: str) -> None:
    """See above."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "object_store_memory": STORE_BYTES,
            "include_dashboard": False,
            "_system_config": QUICK,
        },
    )
    second = cluster.add_node(num_cpus=2, object_store_memory=STORE_BYTES)
    ray.init(address=cluster.address, log_to_driver=False)
    seen: list[int] = []

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        if not line.startswith("epoch"):
            return
        seen.append(len(train_workers()))
        if len(seen) == KILLED_AFTER:
            cluster.remove_node(second, allow_graceful=False)

    request = Request(
        data=Path(data),
        out=Path(out),
        workers=2,
        min_workers=1,
        epochs=int(epochs),
        seed=int(seed),
        recipe=Path(recipe),
    )
    train(request, report)
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps(seen))


def train_workers() -> list[int]:
    """The pids of Ray Train's workers of this process's own Ray."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # gone since it was listed
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
