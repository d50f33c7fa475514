"""The stage ports over Serve handles: one hop per batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.handle import DeploymentHandle

from app.domain import Candidates, Float32s, Histories, SearchFilter
from app.errors import DependencyUnavailable

Handle = DeploymentHandle[Any]

_PAUSE_S = 0.5
_SECOND_TRY_S = 0.2  # where another replica is alive it answers sooner


def _plain_pickle(handle: Handle) -> Handle:
    # Arrays and our own classes need nothing that only cloudpickle can do.
    return handle.options(
        _by_reference=False, request_serialization="pickle", response_serialization="pickle"
    )


class _Stage:
    """Calls to one deployment, which may be away for a while.

    A call that dies with its replica is sent to another one. When that does not help, the stage
    counts as away: calls fail at once, so that no batch waits in vain, but for one every
    `_PAUSE_S` that finds out whether it is back.
    """

    def __init__(self, name: str, handle: Handle) -> None:
        self._name = name
        self._handle = _plain_pickle(handle)
        self._away_until: float | None = None

    async def call(self, method: str, *arguments: Any) -> Any:
        """The stage's answer. Raises DependencyUnavailable when there is none.

        What the far side raises arrives here as it is, beside Ray's own errors; to this side all
        of it means that the stage gave no answer.
        """
        now = time.monotonic()
        if self._away_until is not None:
            if now < self._away_until:
                raise DependencyUnavailable(f"{self._name}: away")
            self._away_until = now + _PAUSE_S  # this call finds out; the others need not wait
        try:
            answer = await self._once_more(method, arguments)
        except BaseException as error:
            # What a replica itself raises shows that it is there.
            there = isinstance(error, RayTaskError)
            self._away_until = None if there else time.monotonic() + _PAUSE_S
            if isinstance(error, Exception):
                raise DependencyUnavailable(f"{self._name}: {error}") from error
            raise  # the caller's patience has ended
        self._away_until = None
        return answer

    async def _once_more(self, method: str, arguments: Sequence[Any]) -> Any:
        try:
            return await self._send(method, arguments)
        except RayActorError:
            async with asyncio.timeout(_SECOND_TRY_S):
                return await self._send(method, arguments)

    async def _send(self, method: str, arguments: Sequence[Any]) -> Any:
        return await getattr(self._handle, method).remote(*arguments)

    async def everywhere(self, method: str, *arguments: Any) -> None:
        """Call it on every replica. Raises DependencyUnavailable when one does not answer."""
        try:
            await self._handle.broadcast(method, *arguments).results_async()
        except Exception as error:
            raise DependencyUnavailable(f"{self._name}: {error}") from error


class StageHandles:
    """Embedder, Retriever and Ranker on three deployments."""

    def __init__(self, embed: Handle, retrieve: Handle, rank: Handle) -> None:
        self._embed = _Stage("embed", embed)
        self._retrieve = _Stage("retrieve", retrieve)
        self._rank = _Stage("rank", rank)

    async def prepare(self, version: str) -> None:
        """Have every replica load the version; DependencyUnavailable when one cannot."""
        for stage in (self._embed, self._retrieve, self._rank):
            await stage.everywhere("prepare", version)

    async def embed(self, version: str, histories: Histories) -> Float32s:
        """See the Embedder port."""
        vectors: Float32s = await self._embed.call("embed", version, histories)
        return vectors

    async def retrieve(
        self,
        version: str,
        vectors: Float32s,
        filters: Sequence[SearchFilter],
        limits: Sequence[int],
    ) -> Candidates:
        """See the Retriever port."""
        found: Candidates = await self._retrieve.call("retrieve", version, vectors, filters, limits)
        return found

    async def rank(self, version: str, histories: Histories, candidates: Candidates) -> Float32s:
        """See the Ranker port."""
        scores: Float32s = await self._rank.call("rank", version, histories, candidates)
        return scores
