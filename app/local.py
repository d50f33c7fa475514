"""The whole service on one machine from pip packages: two Valkeys, Ray, Serve, HAProxy.

Everything started here is a child of this process and ends with it.
"""

from __future__ import annotations

import io
import logging
import os
import resource
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from app.adapters.store import bundle_store
from app.adapters.valkey import Valkey, ValkeyError
from app.api.front import IN_PLACE_OF_SERVE
from app.free_ports import free_port
from app.settings import Settings
from training.model.bundle import Bundle, BundleError

if TYPE_CHECKING:
    from ray.serve import Application

_OBJECT_STORE_BYTES = 100 * 1024 * 1024
_READY_TIMEOUT_S = 90.0
_MOST_CONNECTIONS = 4096


class StartError(Exception):
    """The service cannot start; the message is one line and says what to do."""


def haproxy_connections() -> int:
    """How many HAProxy may be told to accept.

    It takes two and a half file descriptors for each, and does not start where it may not have
    them: a container is sometimes allowed 1,024.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return min(_MOST_CONNECTIONS, max(16, (most - 100) * 2 // 5))


class LocalService:
    """A context manager: the service answers at `.url` inside it."""

    def __init__(
        self,
        settings: Settings,
        *,
        port: int,
        host: str = "127.0.0.1",
        state_dir: Path,
        extra_apps: Mapping[str, Application] | None = None,
        accelerated: bool = True,
    ) -> None:
        """state_dir: where Valkey keeps users' feedback between runs.
        extra_apps: route prefix -> application, deployed beside the service.
        accelerated: HAProxy ingress and Serve's throughput mode; False is stock Serve.
        """
        self._settings = settings
        self._host = host
        self._port = port
        self._state_dir = state_dir
        self._extra_apps = dict(extra_apps or {})
        self._accelerated = accelerated
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """Where the service answers."""
        return f"http://{self._host}:{self._port}"

    def __enter__(self) -> Self:
        """Start everything and wait until it answers. Raises StartError."""
        _check_port(self._host, self._port)
        self._check_bundle()
        try:
            settings = self._with_sockets(self._start_stores())
            self._start_ray()
            self._deploy(settings)
            self._wait_until_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End everything, in reverse order."""
        self._end()

    def _end(self) -> None:
        # Ray prints, to stdout, that Serve's controller is gone, which is what it was told to do.
        with redirect_stdout(io.StringIO()):
            self._stack.close()

    def _check_bundle(self) -> None:
        try:
            store = bundle_store(self._settings)
            version = store.production()
            if version is None:
                raise StartError(
                    f"{self._settings.store} has no published version; "
                    "run `marquee publish RUN --store` first"
                )
            Bundle.open(store.locate(version))
        except (BundleError, OSError, ValueError) as error:
            raise StartError(str(error)) from None

    def _start_stores(self) -> Settings:
        """Valkey for state and for the cache, unless the settings name servers."""
        given = self._settings
        changes: dict[str, Any] = {}
        if not given.redis_url:
            # Feedback is acknowledged only when it is on disk.
            durable = {"appendonly": "yes", "appendfsync": "always"}
            changes["redis_url"] = self._start_valkey(self._state_dir / "state", durable)
        if not given.redis_cache_url and not given.redis_url:
            bounded = {"maxmemory": "256mb", "maxmemory-policy": "allkeys-lru"}
            changes["redis_cache_url"] = self._start_valkey(self._state_dir / "cache", bounded)
        return given.model_copy(update=changes)

    def _with_sockets(self, settings: Settings) -> Settings:
        """A directory where stages listen past Serve, which scales nothing here."""
        if settings.topology == "fused" or not self._accelerated:
            return settings
        sockets = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="marquee-"))
        return settings.model_copy(update={"stage_sockets": sockets})

    def _start_valkey(self, directory: Path, options: dict[str, str]) -> str:
        server = Valkey(directory, free_port(), options)
        try:
            server.start()
        except ValkeyError as error:
            raise StartError(
                f"Valkey did not start in {directory}: {error}; its log is valkey.log there"
            ) from None
        self._stack.callback(server.stop)
        return server.url

    def _start_ray(self) -> None:
        import ray

        if ray.is_initialized():
            return
        # Read by Ray's processes as they start, so they must be set before any of them.
        os.environ.update(self.serve_environment())
        ray.init(
            address="local",
            num_cpus=max(2, os.cpu_count() or 2),
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        self._stack.callback(ray.shutdown)

    def serve_environment(self) -> dict[str, str]:
        """What Ray's processes must find in their environment. A Ray that runs already has it."""
        environment = {"RAY_AUTH_MODE": "disabled", "RAY_SERVE_LOG_TO_STDERR": "0"}
        if not self._accelerated:
            return environment
        haproxy = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="marquee-")))
        stats, metrics, first = free_port(), free_port(), free_port()
        return environment | {
            # Both or neither: throughput mode alone leaves workers without a proxy.
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            # Nothing scales here, and our own metrics count the requests (ADR 35).
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": IN_PLACE_OF_SERVE,
            "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
            "RAY_SERVE_HAPROXY_NBTHREAD": str(os.cpu_count() or 1),
            "RAY_SERVE_HAPROXY_MAXCONN": str(haproxy_connections()),
            # 15 by default, beside which a stage could not yield to the ingress (ADR 36).
            "RAY_worker_niceness": "0",
            # A client that says nothing for so long is gone; the default is an hour.
            "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "30",
            # A request that a dying replica left unanswered goes to another one (ADR 27).
            "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
            # How often a replica is looked at: a dead one must not be missed for the default 5 s.
            # One that cannot be reached is noticed by its requests; one that is late, as under a
            # flood, is not dead before 3 s (ADR 36).
            "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "500ms",
            "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL": "6",
            # Time for load balancers to notice that a replica leaves; here there is none.
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
            # Fixed by default, so that two services on a machine would fight over them.
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
            "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(min(first + 200, 65535)),
        }

    def _deploy(self, settings: Settings) -> None:
        from ray import serve
        from ray.serve.schema import LoggingConfig

        from app.main import build

        logging.getLogger("ray.serve").setLevel(logging.ERROR)  # importing serve set it to INFO
        quiet = LoggingConfig(enable_access_log=False, log_level="ERROR")
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": self._host, "port": self._port},
            logging_config=quiet,
        )
        self._stack.callback(serve.shutdown)
        for number, (prefix, application) in enumerate(self._extra_apps.items()):
            serve.run(application, name=f"extra-{number}", route_prefix=prefix)
        try:
            serve.run(build(settings), name="marquee", route_prefix="/")
        except RuntimeError as error:
            raise StartError(f"{error} (replica logs: {_ray_logs()})") from error

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                with urlopen(f"{self.url}/ready", timeout=2) as response:
                    if response.status == 200:
                        return
            except (URLError, OSError):
                time.sleep(0.1)
        raise StartError(
            f"the service is not ready after {_READY_TIMEOUT_S:.0f} s: {_reason(self.url)} "
            f"(replica logs: {_ray_logs()})"
        )


def wait_for_interrupt() -> None:
    """Return when the process is asked to end (Ctrl-C or SIGTERM).

    From then on it is deaf to both: a second Ctrl-C must not cut the cleaning-up short.
    """
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    asked.wait()


def _reason(url: str) -> str:
    """What the service says of not being ready."""
    try:
        urlopen(f"{url}/ready", timeout=2).close()
    except HTTPError as error:
        return error.read().decode(errors="replace")
    except OSError as error:
        return str(error)
    return "it became ready just now"


def _ray_logs() -> str:
    import ray

    return f"logs/serve in {ray.get_runtime_context().get_session_name()} of Ray's directory"


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port"
            ) from None
