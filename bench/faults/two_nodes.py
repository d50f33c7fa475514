"""`marquee serve` on a Ray of two nodes on this machine; what runs on the second can be lost.

The head has the controller, the proxy and the stores, as on a cluster; replicas are on both.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

WORKER = "worker-node-of-the-bench"
_OBJECT_STORE_BYTES = 100 * 1024 * 1024


def main() -> None:
    """Serve until SIGINT. The arguments are those of `marquee serve`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    arguments = parser.parse_args()

    from app.local import LocalService, wait_for_interrupt
    from app.settings import Settings

    service = LocalService(
        Settings(store=arguments.store),
        port=arguments.port,
        state_dir=arguments.state_dir,
    )
    # Ray's processes inherit it, and here Ray starts before the service does.
    os.environ.update(service.serve_environment())
    import ray
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {
        "num_cpus": 2,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**node, "dashboard_agent_listen_port": 0},  # the fixed one may be taken
    )
    try:
        cluster.add_node(**node, node_name=WORKER)
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        with service:
            wait_for_interrupt()
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
