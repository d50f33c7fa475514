"""The stage ports over Serve handles: one hop per batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from app.domain import Candidates, Float32s, Histories, SearchFilter
from app.errors import DependencyUnavailable

Handle = DeploymentHandle[Any]
_UNREACHABLE = (RayError, RayServeException)


def _plain_pickle(handle: Handle) -> Handle:
    # Arrays and our own classes need nothing that only cloudpickle can do.
    return handle.options(request_serialization="pickle", response_serialization="pickle")


class StageHandles:
    """Embedder, Retriever and Ranker on three deployments."""

    def __init__(self, embed: Handle, retrieve: Handle, rank: Handle) -> None:
        self._embed, self._retrieve, self._rank = map(_plain_pickle, (embed, retrieve, rank))

    async def prepare(self, version: str) -> None:
        """Have every replica load the version; DependencyUnavailable when one cannot."""
        try:
            for handle in (self._embed, self._retrieve, self._rank):
                await handle.broadcast("prepare", version).results_async()
        except _UNREACHABLE as error:
            raise DependencyUnavailable(f"stages: {error}") from error

    async def embed(self, version: str, histories: Histories) -> Float32s:
        """See the Embedder port."""
        try:
            vectors: Float32s = await self._embed.embed.remote(version, histories)
        except _UNREACHABLE as error:
            raise DependencyUnavailable(f"embed: {error}") from error
        return vectors

    async def retrieve(
        self,
        version: str,
        vectors: Float32s,
        filters: Sequence[SearchFilter],
        limits: Sequence[int],
    ) -> Candidates:
        """See the Retriever port."""
        try:
            found: Candidates = await self._retrieve.retrieve.remote(
                version, vectors, filters, limits
            )
        except _UNREACHABLE as error:
            raise DependencyUnavailable(f"retrieve: {error}") from error
        return found

    async def rank(self, version: str, histories: Histories, candidates: Candidates) -> Float32s:
        """See the Ranker port."""
        try:
            scores: Float32s = await self._rank.rank.remote(version, histories, candidates)
        except _UNREACHABLE as error:
            raise DependencyUnavailable(f"rank: {error}") from error
        return scores
