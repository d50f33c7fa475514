"""The ingress: HTTP in, batches through the graph, HTTP out."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from app import logs
from app.adapters.stage_handles import StageHandles
from app.api.routes import build_api
from app.assembly import Ingress, assemble, local_stages
from app.settings import Settings


@serve.deployment
@serve.ingress()
class Gateway:
    """One ingress replica. Without stage handles it runs the stages itself."""

    async def __init__(self, settings: Settings, *stages: DeploymentHandle) -> None:
        """stages: embed, retrieve, rank; none for `topology: fused`."""
        logs.configure()
        self._settings = settings
        remote = StageHandles(*stages) if stages else local_stages(settings)
        self._ingress: Ingress = assemble(settings, remote)
        await self._ingress.promotion.look()
        self._following = asyncio.create_task(self._ingress.promotion.follow())

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve once the replica is constructed."""
        return build_api(self._ingress.service, self._settings)

    async def check_health(self) -> Any:
        """Local state only: a dependency that is away must not restart the replica."""
        if self._following.done():
            raise RuntimeError("no longer follows the production version")
