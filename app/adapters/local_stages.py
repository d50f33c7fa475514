"""The stage ports inside this process: what `topology: fused` and the tests run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from app.domain import Candidates, Float32s, Histories, SearchFilter
from app.models import Versions
from app.ports import VectorIndex
from app.stages.embed import TowerStage
from app.stages.rerank import RankerStage
from training.model.bundle import Bundle


class LocalStages:
    """Embedder, Retriever and Ranker without a hop."""

    def __init__(
        self,
        locate: Callable[[str], Path],
        open_index: Callable[[Bundle], VectorIndex],
        *,
        rank_depth: int,
    ) -> None:
        self._towers: Versions[TowerStage] = Versions(locate, TowerStage)
        self._indexes: Versions[VectorIndex] = Versions(locate, open_index)
        self._rankers: Versions[RankerStage] = Versions(
            locate, lambda bundle: RankerStage(bundle, depth=rank_depth)
        )

    async def prepare(self, version: str) -> None:
        """Load the version before the first batch asks for it."""
        self._towers.get(version)
        self._rankers.get(version)
        await self._indexes.get(version).prepare()

    async def embed(self, version: str, histories: Histories) -> Float32s:
        """See the Embedder port."""
        return self._towers.get(version).embed(histories)

    async def retrieve(
        self,
        version: str,
        vectors: Float32s,
        filters: Sequence[SearchFilter],
        limits: Sequence[int],
    ) -> Candidates:
        """See the Retriever port."""
        return await self._indexes.get(version).search(vectors, filters, limits)

    async def rank(self, version: str, histories: Histories, candidates: Candidates) -> Float32s:
        """See the Ranker port."""
        return self._rankers.get(version).rank(histories, candidates)
