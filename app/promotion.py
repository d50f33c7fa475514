"""Follows the store's production pointer: loads a promoted version everywhere, then switches.

A request keeps the version it began with; a version that does not verify never answers, and the
one before goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from app import logs
from app.errors import DependencyUnavailable, ModelNotReady
from app.metrics import Metrics
from app.models import Model, Versions
from training.model.bundle import BundleError

_log = logs.get("promotion")


class ProductionPointer(Protocol):
    """The store's word on which version should answer."""

    def production(self) -> str | None:
        """The promoted version, None before the first; OSError when the store is away."""
        ...


class Stages(Protocol):
    """Whatever must have a version loaded before it may answer."""

    async def prepare(self, version: str) -> None:
        """Load the version in every replica."""
        ...


class Promotion:
    """The current model of one ingress replica."""

    def __init__(
        self,
        pointer: ProductionPointer,
        models: Versions[Model],
        stages: Stages,
        metrics: Metrics,
        *,
        poll_s: float,
    ) -> None:
        self._pointer = pointer
        self._models = models
        self._stages = stages
        self._metrics = metrics
        self._poll_s = poll_s
        self._current: Model | None = None
        self._refused: str | None = None
        self._following: asyncio.Task[None] | None = None

    def current(self) -> Model:
        """The model that answers new requests. Raises ModelNotReady before the first."""
        if self._current is None:
            raise ModelNotReady("no version is loaded; publish one with `marquee publish`")
        return self._current

    @asynccontextmanager
    async def followed(self, _app: object) -> AsyncIterator[None]:
        """The API's lifespan: look once before the first request, then again and again."""
        await self.look()
        self._following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            self._following.cancel()

    def check_following(self) -> None:
        """RuntimeError when promotions would no longer be noticed."""
        if self._following is not None and self._following.done():
            raise RuntimeError("no longer follows the production version")

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            await self.look()

    async def look(self) -> None:
        """Switch to the promoted version if it is another and can be loaded."""
        try:
            wanted = await asyncio.to_thread(self._pointer.production)
            serving = self._current.version if self._current else None
            if wanted is None or wanted == serving:
                self._refused = None
                return
            model = await asyncio.to_thread(self._models.get, wanted)
            await self._stages.prepare(wanted)
        except (BundleError, OSError, DependencyUnavailable) as error:
            self._note_refusal(str(error))
            return
        self._current = model
        self._refused = None
        self._metrics.version(wanted)
        _log.info("switched", version=wanted, previous=serving)

    def _note_refusal(self, reason: str) -> None:
        if reason != self._refused:  # once, not at every look
            _log.error("version not loaded", reason=reason)
        self._refused = reason
