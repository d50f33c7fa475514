"""Autoscaling for real on one machine: the chart's own Serve config on a Ray whose nodes come and
go.

Ray's autoscaler drives its fake-multinode provider, which starts and ends Ray nodes as processes.
Serve's replicas, Ray's nodes and the requests are real. Two things differ from a cluster: all
nodes share this machine's cores, and only the head has a proxy, because they share its ports too.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import yaml

from app.free_ports import free_port
from bench import processes
from bench.ramp import ramp
from training.errors import UserError

MANIFEST = Path(__file__).parents[1] / "k8s" / "serve-rayservice.yaml"
_HEAD_ID = "f" * 51 + "00000"
_WORKER_CPUS = 4
_START_TIMEOUT_S = 120.0
_OBJECT_STORE_BYTES = 100 * 1024 * 1024
# New nodes and replicas start on the cores that serve, which they do not in a cluster: requests
# wait longer then, and are not refused for it, nor is a replica that answers late taken for dead.
PATIENT = {
    "MARQUEE_MAX_WAIT_MS": "30000",
    "MARQUEE_STAGE_TIMEOUT_MS": "30000",
    "MARQUEE_REDIS_TIMEOUT_MS": "5000",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL": "20",
}
# Set by Kubernetes or by the stores, which are not here, or for `kubectl logs`.
_NOT_HERE = (
    "REDIS_",
    "QDRANT_",
    "MLFLOW_",
    "MARQUEE_STORE",
    "MARQUEE_QDRANT",
    "MARQUEE_EVENT_LOG",
    "RAY_LOG_TO_STDERR",
)


def autoscale(
    store: str,
    clients: Sequence[int],
    step_s: float,
    *,
    max_nodes: int,
    downscale_delay_s: float,
    settle_s: float,
) -> dict[str, Any]:
    """`ramp` against a service in a Ray that starts with one worker node.

    downscale_delay_s replaces the chart's, so that one need not wait a minute to see nodes go.
    """
    with chart_service(
        store, max_nodes=max_nodes, downscale_delay_s=downscale_delay_s, environment=PATIENT
    ) as url:
        return ramp(url, clients, step_s, observe, settle_s=settle_s)


@contextmanager
def chart_service(
    store: str,
    *,
    max_nodes: int,
    downscale_delay_s: float,
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """The service as the chart describes it, on a Ray of its own; yields its address.

    environment: beside the chart's, such as the addresses of stores. This process joins that Ray,
    and whatever else it has started ends with it.
    """
    service = yaml.safe_load(MANIFEST.read_text("utf-8"))
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    port = free_port()
    config["proxy_location"] = "HeadOnly"
    config["http_options"]["port"] = port
    for deployment in config["applications"][0]["deployments"]:
        deployment["autoscaling_config"]["downscale_delay_s"] = downscale_delay_s
    given = {
        "MARQUEE_STORE": str(Path(store).absolute()),
        "MARQUEE_RATE_LIMIT_PER_MINUTE": "0",  # a few users stand for many
        "MARQUEE_MAX_WAIT_MS": "10000",  # until replicas are added there are too few
        **(environment or {}),
    }
    url = f"http://127.0.0.1:{port}"
    with autoscaled_ray(_chart_environment(service) | given, max_nodes) as dashboard:
        _deploy(dashboard, config)
        _wait(f"{url}/ready", "the service is not ready")
        yield url


def _chart_environment(service: dict[str, Any]) -> dict[str, str]:
    """What the chart gives its workers, less the addresses of stores."""
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    return {
        variable["name"]: variable["value"]
        for variable in container["env"]
        if "value" in variable and not variable["name"].startswith(_NOT_HERE)
    }


@contextmanager
def autoscaled_ray(environment: Mapping[str, str], max_nodes: int) -> Iterator[str]:
    """A Ray head with an autoscaler, which this process joins; yields its dashboard's address."""
    import ray
    import ray.util

    gcs, dashboard, low = free_port(), free_port(), free_port()
    ip = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    address = f"{ip}:{gcs}"
    with (
        tempfile.TemporaryDirectory(prefix="mq-") as directory,
        processes.ending_with_this_process(),
    ):
        nodes = Path(directory) / "nodes.yaml"
        nodes.write_text(yaml.safe_dump(_nodes(address, max_nodes)))
        command = [
            str(Path(sys.executable).with_name("ray")),
            "start",
            "--head",
            "--block",
            "--num-cpus=0",
            f"--port={gcs}",
            f"--dashboard-port={dashboard}",
            "--dashboard-agent-listen-port=0",
            f"--ray-client-server-port={free_port()}",
            f"--metrics-export-port={free_port()}",
            "--min-worker-port=0",
            "--max-worker-port=0",
            f"--object-store-memory={_OBJECT_STORE_BYTES}",
            f"--temp-dir={directory}/ray",
            f"--autoscaling-config={nodes}",
        ]
        head = processes.start(
            command, {**environment, **_ray_environment(directory, low)}, stdout=DEVNULL
        )
        _wait(f"http://127.0.0.1:{dashboard}/api/serve/applications/", "Ray does not start", head)
        os.environ["RAY_AUTH_MODE"] = "disabled"
        ray.init(address=address, log_to_driver=False, configure_logging=False)
        try:
            yield f"http://127.0.0.1:{dashboard}"
        finally:
            ray.shutdown()


def _ray_environment(directory: str, first_port: int) -> dict[str, str]:
    haproxy = Path(directory) / "h"  # short: sockets' paths end at 107 characters
    haproxy.mkdir()
    return {
        "RAY_AUTH_MODE": "disabled",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": _HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        # Fixed by default; another service on this machine may have them.
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(min(first_port, 65000)),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(min(first_port, 65000) + 400),
    }


def _nodes(gcs_address: str, max_nodes: int) -> dict[str, Any]:
    """The autoscaler's configuration: one worker always, up to `max_nodes` under load."""
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "launch_multiple": True,
        "head_node_id": _HEAD_ID,
        "gcs_address": gcs_address,
    }
    worker = {"CPU": _WORKER_CPUS, "object_store_memory": _OBJECT_STORE_BYTES}
    nothing: dict[str, Any] = dict.fromkeys(
        (
            "initialization_commands",
            "setup_commands",
            "head_setup_commands",
            "worker_setup_commands",
            "head_start_ray_commands",
            "worker_start_ray_commands",
            "cluster_synced_files",
            "rsync_exclude",
            "rsync_filter",
        ),
        [],
    )
    return {
        "cluster_name": "marquee",
        "max_workers": max_nodes,
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 1.0,
        "provider": provider,
        "auth": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **nothing,
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": worker,
                "node_config": {},
                "min_workers": 1,
                "max_workers": max_nodes,
            },
        },
    }


def _deploy(dashboard: str, config: dict[str, Any]) -> None:
    """As the KubeRay operator does it."""
    request = Request(
        f"{dashboard}/api/serve/applications/",
        data=json.dumps(config).encode(),
        headers={"content-type": "application/json"},
        method="PUT",
    )
    urlopen(request, timeout=30).close()


def observe() -> dict[str, Any]:
    """What is there now: replicas per stage, and worker nodes of Ray."""
    import ray
    from ray import serve

    deployments: Any = serve.status().applications["marquee"].deployments
    alive = (node for node in ray.nodes() if node["Alive"])  # type: ignore[no-untyped-call]
    nodes = [node for node in alive if node["Resources"].get("CPU")]
    return {
        "replicas": {
            name: state.replica_states.get("RUNNING", 0) for name, state in deployments.items()
        },
        "nodes": len(nodes),
    }


def _wait(url: str, otherwise: str, process: Popen[str] | None = None) -> None:
    """Until the address answers. UserError when it does not in time, or the process has ended."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            urlopen(url, timeout=5).close()
            return
        except (URLError, OSError) as error:
            ended = process is not None and process.poll() is not None
            if ended or time.monotonic() >= deadline:
                raise UserError(f"{otherwise}: {error}") from None
            time.sleep(0.5)
