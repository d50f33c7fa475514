"""A release on Kubernetes, seen through its API: status, logs, and promotion inside a worker."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Self

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from kubernetes.stream import stream
from urllib3.exceptions import HTTPError

_RAY = ("ray.io", "v1")
_SERVE_PORT = 8000
_POLL_S = 1.0
_TIMEOUT_S = 30
_PROXY_TIMEOUT_S = 5


class ClusterError(Exception):
    """The cluster cannot be asked, or says no; the message is one line."""


@dataclass(frozen=True)
class Pod:
    """A pod of the release."""

    name: str
    component: str
    phase: str
    ready: bool
    restarts: int


@dataclass(frozen=True)
class Status:
    """What `marquee k8s status` shows. `model_version` is None while nothing answers."""

    ready: bool
    reason: str
    applications: dict[str, str]
    model_version: str | None
    pods: list[Pod]


class Release:
    """One Helm release. Methods raise ClusterError."""

    def __init__(self, api: client.ApiClient, namespace: str, name: str, service: str) -> None:
        """name: of the release. service: of its RayService, `marquee.fullname` in the chart."""
        self._core = client.CoreV1Api(api)
        self._objects = client.CustomObjectsApi(api)
        self._namespace = namespace
        self._name = name
        self._service = service

    @classmethod
    def connect(
        cls, *, namespace: str, name: str, service: str, kubeconfig: str | None, context: str | None
    ) -> Self:
        """Through a kubeconfig: the one named, KUBECONFIG's or ~/.kube/config."""
        try:
            api = config.new_client_from_config(config_file=kubeconfig, context=context)
        except (ConfigException, OSError) as error:
            raise ClusterError(f"no usable kubeconfig: {error}") from error
        return cls(api, namespace, name, service)

    def status(self) -> Status:
        """The RayService's word on itself, its pods and the version that answers."""
        found = self._ask(
            self._objects.get_namespaced_custom_object,
            *_RAY,
            self._namespace,
            "rayservices",
            self._service,
        )
        state = found.get("status", {})
        conditions = {c["type"]: c for c in state.get("conditions", [])}
        ready = conditions.get("Ready", {"status": "Unknown", "reason": "NoCondition"})
        serving = state.get("activeServiceStatus", {}).get("applicationStatuses", {})
        return Status(
            ready=ready["status"] == "True",
            reason=f"{ready.get('reason', '')} {ready.get('message', '')}".strip(),
            applications={name: app.get("status", "") for name, app in serving.items()},
            model_version=self.model_version(),
            pods=self.pods(),
        )

    def model_version(self) -> str | None:
        """The version that answers; None when nothing does.

        Asked through the API server, and where a NetworkPolicy stops that, inside a worker.
        """
        try:
            answer: Any = self._core.connect_get_namespaced_service_proxy_with_path(
                f"{self._service}-serve-svc:{_SERVE_PORT}",
                self._namespace,
                "ready",  # which asks for no API key
                _preload_content=False,
                _request_timeout=_PROXY_TIMEOUT_S,
            )
            said: str | bytes = answer.data
        except (ApiException, HTTPError):
            try:
                said = self.run("wget", "-q", "-O", "-", f"http://127.0.0.1:{_SERVE_PORT}/ready")
            except ClusterError:
                return None
        return str(json.loads(said)["model_version"])

    def pods(self, component: str | None = None) -> list[Pod]:
        """Pods of the release, or of one component of it."""
        selector = f"app.kubernetes.io/instance={self._name}"
        if component:
            selector += f",app.kubernetes.io/component={component}"
        found = self._ask(self._core.list_namespaced_pod, self._namespace, label_selector=selector)
        return [_pod(item) for item in found.items]

    def run(self, *command: str) -> str:
        """Standard output of a command inside a worker; ClusterError with its last line if it
        fails or no worker is ready."""
        ready = [pod for pod in self.pods("serve-worker") if pod.ready]
        if not ready:
            raise ClusterError(f"no worker of {self._name} in {self._namespace} is ready")
        shell = self._ask(
            stream,
            self._core.connect_get_namespaced_pod_exec,
            ready[0].name,
            self._namespace,
            container="ray-worker",
            command=list(command),
            stdout=True,
            stderr=True,
            stdin=False,
            tty=False,
            _preload_content=False,
        )
        shell.run_forever()
        printed, complained = shell.read_stdout(), shell.read_stderr()
        if shell.returncode:
            lines = [line for line in complained.splitlines() if line.strip()]
            raise ClusterError(lines[-1] if lines else f"{command[0]} failed in {ready[0].name}")
        return str(printed)

    def wait_for_version(self, version: str, timeout_s: float) -> None:
        """Until the version answers; ClusterError when it does not in time."""
        deadline = time.monotonic() + timeout_s
        while (serving := self.model_version()) != version:
            if time.monotonic() >= deadline:
                raise ClusterError(
                    f"version {version} is promoted, but {serving or 'nothing'} answers "
                    f"after {timeout_s:g} s: look at `marquee k8s logs`"
                )
            time.sleep(_POLL_S)

    def logs(self, component: str, *, lines: int) -> dict[str, str]:
        """The last lines of each pod of a component: pod name -> text."""
        pods = self.pods(component)
        if not pods:
            raise ClusterError(
                f"no pod of {component!r}; there are {', '.join(self.components()) or 'none'}"
            )
        return {pod.name: self._log(pod, lines) for pod in pods}

    def components(self) -> list[str]:
        """Components that have pods."""
        return sorted({pod.component for pod in self.pods()})

    def _log(self, pod: Pod, lines: int) -> str:
        container = {"serve-head": "ray-head", "serve-worker": "ray-worker"}.get(pod.component)
        chosen = {"container": container} if container else {}
        # Not decoded by the client, which makes a text of it in its own way.
        answer: Any = self._ask(
            self._core.read_namespaced_pod_log,
            pod.name,
            self._namespace,
            tail_lines=lines,
            _preload_content=False,
            **chosen,
        )
        return str(answer.data.decode(errors="replace"))

    def _ask(self, call: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, **options)
        except ApiException as error:
            raise ClusterError(_reason(error)) from error
        except (HTTPError, OSError) as error:
            raise ClusterError(f"the cluster does not answer: {error}") from error


def _pod(item: Any) -> Pod:
    statuses = item.status.container_statuses or []
    return Pod(
        name=item.metadata.name,
        component=(item.metadata.labels or {}).get("app.kubernetes.io/component", ""),
        phase=item.status.phase,
        ready=bool(statuses) and all(status.ready for status in statuses),
        restarts=sum(status.restart_count for status in statuses),
    )


def _reason(error: ApiException) -> str:
    try:
        return str(json.loads(error.body or "")["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"
