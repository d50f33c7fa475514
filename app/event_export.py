"""Copies the event stream into the event log or another stream, which say how far they got."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.domain import Erasure, StreamEntry
from app.ports import Erasures, EventStream

PAGE_ENTRIES = 5_000
FILE_ENTRIES = 200_000


class Log(Protocol):
    """Where events go. Methods may raise OSError."""

    def last_id(self) -> str:
        """The id of the newest entry, "0-0" when there is none."""
        ...

    def append(self, entries: Sequence[StreamEntry]) -> list[str]:
        """Write the entries, which ascend by id; returns the names of what was written."""
        ...

    def erase(self, erasures: Mapping[str, Erasure], written: Sequence[str] = ()) -> int:
        """Take erased users out, from all that is there if they are new to the log, and from
        `written`; returns how many events."""
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
    """What one export did: entries written, entries of erased users taken out of the log,
    entries dropped from the stream; and the log's last id."""

    events: int
    erased: int
    trimmed: int
    last_id: str


async def export(stream: EventStream, erasures: Erasures, log: Log) -> tuple[int, int]:
    """Write what the log does not have yet and take erased users out; how many entries of each.

    A run that dies in between has written whole files or nothing: the next one goes on behind
    the last id of the log. Raises DependencyUnavailable, OSError.
    """
    after = await asyncio.to_thread(log.last_id)
    events = erased = 0
    more = True
    while more:
        entries = await _read(stream, after)
        files = await asyncio.to_thread(log.append, entries)
        # Asked after the writing: whoever was erased while their entries were on their way here
        # is in the answer.
        erased += await asyncio.to_thread(log.erase, await erasures.all(), files)
        events += len(entries)
        more = bool(entries)
        after = entries[-1].event_id if entries else after
    return events, erased


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


async def export_and_trim(
    stream: TrimmedStream, erasures: Erasures, log: Log, *, keep_hours: float | None
) -> Exported:
    """Export, then drop from the stream what is in the log and older than `keep_hours`.

    keep_hours: None keeps the stream as it is.
    """
    events, erased = await export(stream, erasures, log)
    last_id = await asyncio.to_thread(log.last_id)
    trimmed = 0
    if keep_hours is not None:
        exported_ms = int(last_id.partition("-")[0])
        oldest_ms = int((time.time() - keep_hours * 3600) * 1000)
        trimmed = await stream.trim(f"{min(oldest_ms, exported_ms)}-0")
    return Exported(events, erased, trimmed, last_id)


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
