"""Copies the event stream into the event log or another stream, which say how far they got."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.domain import StreamEntry
from app.ports import EventStream

PAGE_ENTRIES = 5_000
FILE_ENTRIES = 200_000


class Log(Protocol):
    """Where events go. Methods may raise OSError."""

    def last_id(self) -> str:
        """The id of the newest entry, "0-0" when there is none."""
        ...

    def append(self, entries: Sequence[StreamEntry]) -> None:
        """Write the entries, which ascend by id."""
        ...


class TrimmedStream(EventStream, Protocol):
    """A stream whose old entries have to be dropped by somebody."""

    async def trim(self, before: str) -> int:
        """Drop the entries with ids before `before`; returns how many."""
        ...


class Mirror(EventStream, Protocol):
    """A stream that is a copy of another."""

    async def newest_id(self) -> str:
        """The id of the newest entry, "0-0" when there is none."""
        ...


@dataclass(frozen=True)
class Exported:
    """What one export did: entries written, entries dropped from the stream, the log's last id."""

    events: int
    trimmed: int
    last_id: str


async def export(stream: EventStream, log: Log) -> int:
    """Write what the log does not have yet; returns how many entries.

    A run that dies in between has written whole files or nothing: the next one goes on behind
    the last id of the log. Raises DependencyUnavailable, OSError.
    """
    after = await asyncio.to_thread(log.last_id)
    written = 0
    while entries := await _read(stream, after):
        await asyncio.to_thread(log.append, entries)
        written += len(entries)
        after = entries[-1].event_id
    return written


async def mirror(stream: EventStream, copy: Mirror) -> int:
    """Add to the copy what it does not have yet; returns how many entries.

    Raises DependencyUnavailable; what was added until then stays, and is not added again.
    """
    after = await copy.newest_id()
    added = 0
    while entries := await stream.read(after, PAGE_ENTRIES):
        await copy.append(entries)
        added += len(entries)
        after = entries[-1].event_id
    return added


async def export_and_trim(stream: TrimmedStream, log: Log, *, keep_hours: float | None) -> Exported:
    """Export, then drop from the stream what is in the log and older than `keep_hours`.

    keep_hours: None keeps the stream as it is.
    """
    written = await export(stream, log)
    last_id = await asyncio.to_thread(log.last_id)
    trimmed = 0
    if keep_hours is not None:
        exported_ms = int(last_id.partition("-")[0])
        oldest_ms = int((time.time() - keep_hours * 3600) * 1000)
        trimmed = await stream.trim(f"{min(oldest_ms, exported_ms)}-0")
    return Exported(written, trimmed, last_id)


async def _read(stream: EventStream, after: str) -> list[StreamEntry]:
    """The next file's worth of entries, read page by page."""
    entries: list[StreamEntry] = []
    while len(entries) < FILE_ENTRIES:
        page = await stream.read(after, PAGE_ENTRIES)
        if not page:
            break
        entries += page
        after = page[-1].event_id
    return entries
