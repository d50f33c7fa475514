"""The stages as deployments: shells that load by version, hand over and return.

Plain classes; `app.main` makes Serve deployments of them. Without settings they read those of their
replica's environment. A replica imports only what its own stage needs: torch and LightGBM cost
over a second and 100 MB each.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from app.adapters.indexes import open_index
from app.adapters.store import bundle_store
from app.adapters.unix_calls import Listener
from app.domain import Candidates, Float32s, Histories, SearchFilter
from app.models import Versions
from app.ports import VectorIndex
from app.settings import Settings

if TYPE_CHECKING:
    from app.stages.embed import TowerStage
    from app.stages.rerank import RankerStage


_log = logging.getLogger(__name__)

# Added to the niceness of a stage's replica: on cores that it shares with an ingress replica, a
# request is read, answered from the cache or refused while others' slates are computed (ADR 36).
_YIELD = 10


class _Replica:
    """What replicas of all stages have."""

    def __init__(self, settings: Settings | None) -> None:
        os.nice(_YIELD)
        self._settings = settings or Settings()
        self._listener: Listener | None = None

    async def listen(self) -> str | None:
        """The socket on which this replica takes calls beside Serve's; None where it has none."""
        if self._settings.stage_sockets and self._listener is None:
            name = f"{type(self).__name__.lower()}-{uuid4().hex[:8]}"
            self._listener = Listener(self, Path(self._settings.stage_sockets) / name)
            try:
                await self._listener.start()
            except OSError as error:
                path, self._listener = self._listener.path, None
                _log.warning("no socket at %s (%s): batches come by Serve", path, error)
        return str(self._listener.path) if self._listener else None


class Embed(_Replica):
    """The user tower."""

    def __init__(self, settings: Settings | None) -> None:
        from app.stages.embed import TowerStage

        super().__init__(settings)
        settings = self._settings
        self._versions: Versions[TowerStage] = Versions(bundle_store(settings).locate, TowerStage)

    async def prepare(self, version: str) -> None:
        """Load the version before the first batch asks for it."""
        self._versions.get(version)

    async def embed(self, version: str, histories: Histories) -> Float32s:
        """See the Embedder port."""
        return self._versions.get(version).embed(histories)


class Retrieve(_Replica):
    """The vector index."""

    def __init__(self, settings: Settings | None) -> None:
        super().__init__(settings)
        settings = self._settings
        self._versions: Versions[VectorIndex] = Versions(
            bundle_store(settings).locate, lambda bundle: open_index(settings, bundle)
        )

    async def prepare(self, version: str) -> None:
        """Load the version before the first batch asks for it."""
        await self._versions.get(version).prepare()

    async def retrieve(
        self,
        version: str,
        vectors: Float32s,
        filters: Sequence[SearchFilter],
        limits: Sequence[int],
    ) -> Candidates:
        """See the Retriever port."""
        return await self._versions.get(version).search(vectors, filters, limits)


class Rank(_Replica):
    """The second stage."""

    def __init__(self, settings: Settings | None) -> None:
        from app.stages.rerank import RankerStage

        super().__init__(settings)
        settings = self._settings
        self._versions: Versions[RankerStage] = Versions(
            bundle_store(settings).locate,
            lambda bundle: RankerStage(bundle, depth=settings.rank_depth),
        )

    async def prepare(self, version: str) -> None:
        """Load the version before the first batch asks for it."""
        self._versions.get(version)

    async def rank(self, version: str, histories: Histories, candidates: Candidates) -> Float32s:
        """See the Ranker port."""
        return self._versions.get(version).rank(histories, candidates)
