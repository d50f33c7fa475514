"""The stage ports over Serve handles: one hop per batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ray.serve.handle import DeploymentHandle

from app.domain import Candidates, Float32s, Histories, SearchFilter
from app.errors import DependencyUnavailable

Handle = DeploymentHandle[Any]


def _plain_pickle(handle: Handle) -> Handle:
    # Arrays and our own classes need nothing that only cloudpickle can do.
    return handle.options(
        _by_reference=False, request_serialization="pickle", response_serialization="pickle"
    )


@contextmanager
def _translated(stage: str) -> Iterator[None]:
    """DependencyUnavailable for whatever goes wrong in or on the way to a stage.

    What the far side raises arrives here as it is, beside Ray's own errors; to this side all of it
    means that the stage gave no answer.
    """
    try:
        yield
    except Exception as error:
        raise DependencyUnavailable(f"{stage}: {error}") from error


class StageHandles:
    """Embedder, Retriever and Ranker on three deployments."""

    def __init__(self, embed: Handle, retrieve: Handle, rank: Handle) -> None:
        self._embed, self._retrieve, self._rank = map(_plain_pickle, (embed, retrieve, rank))

    async def prepare(self, version: str) -> None:
        """Have every replica load the version; DependencyUnavailable when one cannot."""
        with _translated("stages"):
            for handle in (self._embed, self._retrieve, self._rank):
                await handle.broadcast("prepare", version).results_async()

    async def embed(self, version: str, histories: Histories) -> Float32s:
        """See the Embedder port."""
        with _translated("embed"):
            vectors: Float32s = await self._embed.embed.remote(version, histories)
        return vectors

    async def retrieve(
        self,
        version: str,
        vectors: Float32s,
        filters: Sequence[SearchFilter],
        limits: Sequence[int],
    ) -> Candidates:
        """See the Retriever port."""
        with _translated("retrieve"):
            found: Candidates = await self._retrieve.retrieve.remote(
                version, vectors, filters, limits
            )
        return found

    async def rank(self, version: str, histories: Histories, candidates: Candidates) -> Float32s:
        """See the Ranker port."""
        with _translated("rank"):
            scores: Float32s = await self._rank.rank.remote(version, histories, candidates)
        return scores
