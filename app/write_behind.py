"""Writes slates to the cache after they are answered: nobody waits for a write.

A slate's key holds all that the slate depends on, so one that is written late, or never, is never
a wrong one. What waits is found by `get` as if it were written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from app.errors import DependencyUnavailable
from app.metrics import Metrics
from app.ports import SlateCache

_MAX_WAITING_BYTES = 16 * 2**20


class WriteBehindCache:
    """The SlateCache port over another one, with a `put` that returns at once and never fails.

    One write at a time takes all that waits. What cannot be written, or would make more than
    `max_waiting_bytes` wait, is left out and counted as the dependency "cache_write".
    """

    def __init__(
        self,
        cache: SlateCache,
        metrics: Metrics,
        *,
        timeout_s: float,
        max_waiting_bytes: int = _MAX_WAITING_BYTES,
    ) -> None:
        """timeout_s: longest time for one write."""
        self._cache = cache
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._max_waiting_bytes = max_waiting_bytes
        self._waiting: dict[str, bytes] = {}  # and what is being written
        self._writing: asyncio.Task[None] | None = None
        self.drop = cache.drop

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """See the port."""
        waiting = [self._waiting.get(key) for key in keys]  # before: it may be written meanwhile
        found = await self._cache.get(keys)
        return [w if f is None else f for w, f in zip(waiting, found, strict=True)]

    async def put(self, slates: Mapping[str, bytes]) -> None:
        """See the port."""
        if _bytes(self._waiting) + _bytes(slates) > self._max_waiting_bytes:
            self._metrics.degraded("cache_write", asyncio.QueueFull())
            return
        self._waiting.update(slates)
        if self._waiting and self._writing is None:
            self._writing = asyncio.create_task(self._write())

    async def written(self) -> None:
        """Return when nothing waits any more: at most two writes."""
        while self._writing is not None:
            await asyncio.shield(self._writing)

    async def keys(self, prefix: str) -> list[str]:
        """See the port. What waited is among them, so that it can be dropped."""
        await self.written()
        return await self._cache.keys(prefix)

    async def _write(self) -> None:
        try:
            while self._waiting:
                await self._write_once(dict(self._waiting))
        finally:
            self._writing = None

    async def _write_once(self, slates: dict[str, bytes]) -> None:
        try:
            with self._metrics.stage("cache_write"):
                async with asyncio.timeout(self._timeout_s):
                    await self._cache.put(slates)
        except (DependencyUnavailable, TimeoutError) as error:
            self._metrics.degraded("cache_write", error)
        finally:
            for key, slate in slates.items():
                if self._waiting.get(key) is slate:
                    del self._waiting[key]


def _bytes(slates: Mapping[str, bytes]) -> int:
    return sum(map(len, slates.values()))
