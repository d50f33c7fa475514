"""The ingress: HTTP in, batches through the graph, HTTP out."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from app import logs
from app.adapters.stage_handles import StageHandles
from app.api.front import stand_before
from app.api.routes import build_api
from app.assembly import assemble, local_stages
from app.deployments.ray_metrics import RayMetrics
from app.settings import Settings


class Gateway:
    """One ingress replica. Without stage handles it runs the stages itself."""

    def __init__(self, settings: Settings | None, *stages: DeploymentHandle[Any]) -> None:
        """settings: None for those of this replica's environment.
        stages: embed, retrieve, rank; none for `topology: fused`."""
        logs.configure()
        self._settings = settings = settings or Settings()
        self._ingress = assemble(
            settings,
            StageHandles(*stages, have_sockets=bool(settings.stage_sockets))
            if stages
            else local_stages(settings),
        )

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Called by Serve once the replica is constructed."""
        ingress = self._ingress
        api = build_api(ingress.service, self._settings, self._lifespan, ingress.limiter)
        stand_before(api, ingress.service.check_load)
        return api

    @asynccontextmanager
    async def _lifespan(self, api: object) -> AsyncIterator[None]:
        """While the API is served: follow promotions and the online state, report metrics."""
        reporting = asyncio.create_task(RayMetrics(self._ingress.service.metrics).follow())
        try:
            async with self._ingress.promotion.followed(api), self._ingress.live.followed():
                _spare_what_stays()
                yield
        finally:
            reporting.cancel()
            await self._ingress.service.close()

    async def check_health(self) -> None:
        """Local state only: a dependency that is away must not restart the replica."""
        self._ingress.promotion.check_following()


def _spare_what_stays() -> None:
    """Have the garbage collector leave alone what the replica has by now, and come less often.

    Its rounds through the modules and the catalogue were 7% of the ingress's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
