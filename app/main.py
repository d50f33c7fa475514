"""The composition root for Ray Serve: `build(settings)` makes the application.

`serve run app.main:app` and a RayService's `import_path: app.main:app` read the settings from the
environment.
"""

from __future__ import annotations

from typing import Any

from ray.serve import Application

from app.deployments.gateway import Gateway
from app.deployments.stages import Embed, Rank, Retrieve
from app.settings import Settings

_QUIET = {"enable_access_log": False, "log_level": "WARNING"}


def build(settings: Settings) -> Application:
    """The graph of `settings.topology`."""
    # A batch is one request to a stage, so a stage needs room for the batches in flight only.
    stage: dict[str, Any] = {
        "max_ongoing_requests": 4 * settings.batches_in_flight,
        "logging_config": _QUIET,
        "ray_actor_options": {"num_cpus": settings.stage_cpus},
    }
    gateway = Gateway.options(
        max_ongoing_requests=settings.max_ongoing_requests,
        logging_config=_QUIET,
        ray_actor_options={"num_cpus": settings.stage_cpus},
    )
    if settings.topology == "fused":
        return gateway.bind(settings)
    return gateway.bind(
        settings,
        Embed.options(**stage).bind(settings),
        Retrieve.options(**stage).bind(settings),
        Rank.options(**stage).bind(settings),
    )


def app(_arguments: dict[str, str]) -> Application:
    """Application builder for Serve's config files and `serve run`."""
    return build(Settings())
