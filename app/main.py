"""The composition root for Ray Serve: `build(settings)` makes the application.

`serve run app.main:app` and a RayService's `import_path: app.main:app` read the settings from the
environment: here for the graph's shape, and in each replica for all else. A replica's arguments
are kept in Ray's store, which is no place for passwords.
"""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve import Application, Deployment

from app.deployments.gateway import Gateway
from app.deployments.stages import Embed, Rank, Retrieve
from app.settings import Settings

_QUIET = {"enable_access_log": False, "log_level": "WARNING"}


def build(settings: Settings) -> Application:
    """The graph of `settings.topology`, whose replicas work with these very settings."""
    return _graph(settings, settings)


def _graph(settings: Settings, given: Settings | None) -> Application:
    gateway: Deployment = serve.deployment(
        name="Gateway",
        max_ongoing_requests=settings.max_ongoing_requests,
        **_replica(settings),
    )(serve.ingress()(Gateway))
    if settings.topology == "fused":
        return gateway.bind(given)
    stages = (_stage(settings, stage).bind(given) for stage in (Embed, Retrieve, Rank))
    return gateway.bind(given, *stages)


def _stage(settings: Settings, stage: type) -> Deployment:
    # A batch is one request to a stage, so it needs room for the batches in flight only.
    room = 4 * settings.batches_in_flight
    return serve.deployment(max_ongoing_requests=room, **_replica(settings))(stage)


def _replica(settings: Settings) -> dict[str, Any]:
    return {
        "logging_config": _QUIET,
        "ray_actor_options": {"num_cpus": settings.replica_cpus},
        # How soon a dead replica is replaced; by default the controller looks every 10 s.
        "health_check_period_s": 1.0,
        # Not said where it is one: a config file may then say that Serve shall scale.
        **({"num_replicas": settings.replicas} if settings.replicas > 1 else {}),
    }


def app(_arguments: dict[str, str]) -> Application:
    """Application builder for Serve's config files and `serve run`."""
    return _graph(Settings(), None)
