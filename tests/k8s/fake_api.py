"""A Kubernetes API server that replays what one answered, for `marquee k8s`.

The answers have the shape of Kubernetes 1.36 and KubeRay 1.7, cut to what a client may read.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

RAY_SERVICE = {
    "apiVersion": "ray.io/v1",
    "kind": "RayService",
    "metadata": {"name": "marquee", "namespace": "recsys"},
    "status": {
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "NonZeroServeEndpoints", "message": ""},
            {"type": "UpgradeInProgress", "status": "False", "reason": "NoPendingCluster"},
        ],
        "activeServiceStatus": {
            "applicationStatuses": {"marquee": {"status": "RUNNING"}},
            "rayClusterName": "marquee-x7k2p",
        },
    },
}


def pod(name: str, component: str, *, ready: bool = True) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"app.kubernetes.io/component": component}},
        "spec": {"containers": [{"name": "main", "image": "marquee:0.1.0"}]},
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {
                    "name": "main",
                    "ready": ready,
                    "restartCount": 1,
                    "image": "marquee:0.1.0",
                    "imageID": "",
                }
            ],
        },
    }


@dataclass
class FakeApi:
    """State of the cluster, which tests change."""

    version: str | None = "1"
    is_proxied: bool = True  # whether a policy lets the API server reach the service
    exit_code: int = 0
    commands: list[list[str]] = field(default_factory=list)
    pods: list[dict[str, Any]] = field(
        default_factory=lambda: [
            pod("marquee-x7k2p-head", "serve-head"),
            pod("marquee-x7k2p-worker-1", "serve-worker", ready=False),
            pod("marquee-x7k2p-worker-2", "serve-worker"),
        ]
    )

    def app(self) -> Starlette:
        pods = "/api/v1/namespaces/recsys/pods"
        return Starlette(
            routes=[
                Route("/apis/ray.io/v1/namespaces/recsys/rayservices/{name}", self.ray_service),
                Route(pods, self.list_pods),
                Route(pods + "/{name}/log", self.log),
                WebSocketRoute(pods + "/{name}/exec", self.execute),
                Route(
                    "/api/v1/namespaces/recsys/services/marquee-serve-svc:8000/proxy/ready",
                    self.ready,
                ),
            ]
        )

    async def ray_service(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name == "marquee":
            return JSONResponse(RAY_SERVICE)
        message = f'rayservices.ray.io "{name}" not found'
        return JSONResponse({"kind": "Status", "message": message, "code": 404}, 404)

    async def list_pods(self, request: Request) -> Response:
        wanted = dict(
            part.split("=") for part in request.query_params["labelSelector"].split(",")
        ).get("app.kubernetes.io/component")
        items = [
            item
            for item in self.pods
            if wanted in (None, item["metadata"]["labels"]["app.kubernetes.io/component"])
        ]
        return JSONResponse({"kind": "PodList", "apiVersion": "v1", "items": items})

    async def log(self, request: Request) -> Response:
        lines = int(request.query_params["tailLines"])
        return PlainTextResponse("".join(f"line {n}\n" for n in range(lines)))

    async def ready(self, _request: Request) -> Response:
        if self.version is None or not self.is_proxied:
            return JSONResponse({"kind": "Status", "message": "no endpoints available"}, 503)
        return JSONResponse({"model_version": self.version})

    async def execute(self, socket: WebSocket) -> None:
        """The protocol v4.channel.k8s.io: a byte of channel before each message."""
        command = socket.query_params.getlist("command")
        self.commands.append(command)
        await socket.accept(subprotocol="v4.channel.k8s.io")
        asked = command[0] == "wget"
        if self.exit_code or (asked and self.version is None):
            await socket.send_bytes(b"\x02error: version 9 is not there\n")
            causes = [{"reason": "ExitCode", "message": str(self.exit_code or 8)}]
            status = {
                "status": "Failure",
                "reason": "NonZeroExitCode",
                "details": {"causes": causes},
            }
        else:
            if not asked:
                self.version = command[2] if command[1] == "promote" else "1"
            answer = json.dumps({"version": self.version, "model_version": self.version})
            await socket.send_bytes(b"\x01" + answer.encode())
            status = {"status": "Success"}
        await socket.send_bytes(b"\x03" + json.dumps(status).encode())
        await socket.close()
