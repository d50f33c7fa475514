"""Erasing a user: everywhere at once, with a receipt, and looking for what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from app.cache_keys import user_prefix
from app.domain import Erasure, UserId, event_order
from app.ports import Erasures, SlateCache


class ErasableStream(Protocol):
    """A stream that a user can be taken out of."""

    async def find(self, user_id: UserId, upto: str) -> list[str]:
        """The ids up to `upto` of the user's entries."""
        ...

    async def remove(self, event_ids: Sequence[str]) -> None:
        """Drop the entries with these ids."""
        ...


class ErasableLog(Protocol):
    """A log that users can be taken out of. Methods may raise OSError."""

    def erase(self, erasures: Mapping[str, Erasure]) -> int:
        """Take the users out and list them; returns how many events that were."""
        ...

    def find(self, user_id: str, upto: str) -> list[str]:
        """The files that hold events of the user with ids up to `upto`."""
        ...

    def erasures(self) -> dict[str, dict[str, str]]:
        """The listed users, with the event_id of their erasure."""
        ...


class Eraser:
    """Takes users out of all places where they are."""

    def __init__(
        self,
        erasures: Erasures,
        stream: ErasableStream,
        cache: SlateCache,
        log: ErasableLog | None,
    ) -> None:
        """log: None where the service does not know it; the next export erases from it then."""
        self.erasures = erasures
        self._stream = stream
        self._cache = cache
        self._log = log

    async def erase(self, user_id: UserId) -> Erasure:
        """Erase a user, known or not; returns the receipt, which counts what earlier erasures of
        the user removed as well.

        From the first step on nothing of the user is served. Raises DependencyUnavailable or
        OSError when a place could not be reached: then it has to be asked for again.
        """
        erasure = await self.erasures.begin(user_id)
        entries = await self._stream.find(user_id, erasure.event_id)
        await self._stream.remove(entries)
        erasure = await self._note(erasure, "stream", len(entries))
        keys = await self._cache.keys(user_prefix(user_id))
        await self._cache.drop(keys)
        erasure = await self._note(erasure, "cache", len(keys))
        if self._log is not None:
            events = await asyncio.to_thread(self._log.erase, {erasure.user_id: erasure})
            erasure = await self._note(erasure, "log", events)
        receipt = replace(erasure, is_finished=True)
        await self.erasures.note(receipt)
        return receipt

    async def _note(self, erasure: Erasure, place: str, count: int) -> Erasure:
        """Note so many more as removed from a place: the next one may be away."""
        removed = erasure.removed | {place: erasure.removed.get(place, 0) + count}
        noted = replace(erasure, removed=removed)
        await self.erasures.note(noted)
        return noted

    async def left(self, erasure: Erasure) -> dict[str, str]:
        """What is still there of an erased user: place -> what it is; empty when all is gone."""
        found: dict[str, str] = {}
        if not erasure.is_finished:
            found["record"] = "the erasure was interrupted: send the DELETE again"
        entries = await self._stream.find(erasure.user_id, erasure.event_id)
        if entries:
            found["stream"] = f"{len(entries)} entries, the first is {entries[0]}"
        keys = await self._cache.keys(user_prefix(erasure.user_id))
        old = [key for key in keys if _is_before(key, erasure.event_id)]
        if old:
            found["cache"] = f"{len(old)} slates from before"
        if self._log is not None:
            files = await asyncio.to_thread(self._log.find, erasure.user_id, erasure.event_id)
            listed = await asyncio.to_thread(self._log.erasures)
            if files:
                found["log"] = f"events in {len(files)} files, the first is {files[0]}"
            elif listed.get(erasure.user_id, {}).get("event_id") != erasure.event_id:
                found["log"] = "the user is not listed in it as erased: export once more"
        return found


def _is_before(key: str, event_id: str) -> bool:
    """Whether a cached slate is of a revision from before the erasure."""
    revision = key.split(":")[3]
    return "-" not in revision or event_order(revision) < event_order(event_id)
