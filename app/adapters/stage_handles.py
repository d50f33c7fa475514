"""The stage ports over Serve handles: one hop per batch.

A handle's call is over a millisecond of processor time on either side. Replicas that listen on a
Unix socket (`MARQUEE_STAGE_SOCKETS`, docs/adr/0037) are called there, and by the handle only while
they cannot be.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.handle import DeploymentHandle

from app.adapters.unix_calls import CallFailed, Connection
from app.domain import Candidates, Float32s, Histories, SearchFilter
from app.errors import DependencyUnavailable

Handle = DeploymentHandle[Any]

_PAUSE_S = 0.5
_SECOND_TRY_S = 0.2  # where another replica is alive it answers sooner
_LOOK_EVERY_S = 1.0


def _plain_pickle(handle: Handle) -> Handle:
    # Arrays and our own classes need nothing that only cloudpickle can do.
    return handle.options(
        _by_reference=False, request_serialization="pickle", response_serialization="pickle"
    )


class _Sockets:
    """Connections to the replicas of one deployment that listen on sockets of this machine.

    As long as there are fewer than there once were, or none, it looks for more, once a second.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._connections: dict[str, Connection] = {}
        self._wanted = 1
        self._looked = -_LOOK_EVERY_S
        self._looking: asyncio.Task[None] | None = None

    def idlest(self) -> Connection | None:
        """The one that owes the fewest answers; None when nothing listens, as far as is known."""
        alive = {path: c for path, c in self._connections.items() if c.is_open}
        self._connections = alive
        if len(alive) < self._wanted and time.monotonic() >= self._looked + _LOOK_EVERY_S:
            self._looked = time.monotonic()
            self._looking = asyncio.create_task(self._look())
        return min(alive.values(), key=lambda c: c.unanswered, default=None)

    async def _look(self) -> None:
        try:
            paths = await self._handle.broadcast("listen").results_async()
        except Exception:  # a replica that is dying, starting or on the way here: the next look
            return
        for path in filter(None, paths):
            if path not in self._connections:
                try:
                    self._connections[path] = await Connection.to(Path(path))
                except OSError:
                    continue  # on another machine, or gone since
        self._wanted = max(self._wanted, len(self._connections))


class _Stage:
    """Calls to one deployment, which may be away for a while.

    A call that dies with its replica is sent to another one. When that does not help, the stage
    counts as away: calls fail at once, so that no batch waits in vain, but for one every
    `_PAUSE_S` that finds out whether it is back.
    """

    def __init__(self, name: str, handle: Handle, *, has_sockets: bool) -> None:
        self._name = name
        self._handle = _plain_pickle(handle)
        self._sockets = _Sockets(self._handle) if has_sockets else None
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
            there = isinstance(error, RayTaskError | CallFailed)
            self._away_until = None if there else time.monotonic() + _PAUSE_S
            if isinstance(error, Exception):
                raise DependencyUnavailable(f"{self._name}: {error}") from error
            raise  # the caller's patience has ended
        self._away_until = None
        return answer

    async def _once_more(self, method: str, arguments: Sequence[Any]) -> Any:
        try:
            return await self._send(method, arguments)
        except (RayActorError, ConnectionError):
            async with asyncio.timeout(_SECOND_TRY_S):
                return await self._send(method, arguments)

    async def _send(self, method: str, arguments: Sequence[Any]) -> Any:
        connection = self._sockets.idlest() if self._sockets else None
        if connection is not None:
            return await connection.call(method, *arguments)
        return await getattr(self._handle, method).remote(*arguments)

    async def everywhere(self, method: str, *arguments: Any) -> None:
        """Call it on every replica. Raises DependencyUnavailable when one does not answer."""
        try:
            await self._handle.broadcast(method, *arguments).results_async()
        except Exception as error:
            raise DependencyUnavailable(f"{self._name}: {error}") from error


class StageHandles:
    """Embedder, Retriever and Ranker on three deployments."""

    def __init__(
        self, embed: Handle, retrieve: Handle, rank: Handle, *, have_sockets: bool = False
    ) -> None:
        """have_sockets: replicas may listen on Unix sockets of this machine."""
        self._embed = _Stage("embed", embed, has_sockets=have_sockets)
        self._retrieve = _Stage("retrieve", retrieve, has_sockets=have_sockets)
        self._rank = _Stage("rank", rank, has_sockets=have_sockets)

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
