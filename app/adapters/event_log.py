"""The event log: acknowledged events as Parquet, in a directory or on S3.

    LOG/events/date=2026-11-21/<first id>_<last id>.parquet
    LOG/erasures.json   {user id: {"event_id", "erased_at"}}: what training leaves out

A file holds the entries of one day (UTC, of the event id) between two ids, ascending, and appears
whole or not at all; its name says what is in it, so that the log alone knows how far it got. Two
writers at once may write the same entry twice: readers tell entries apart by `event_id`
(training/data/event_log.py).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Self, cast
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from app.domain import Erasure, StreamEntry, event_order
from training.model.store import s3_filesystem

EVENTS = "events"
ERASURES = "erasures.json"
SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("event_type", pa.string()),
        ("timestamp", pa.timestamp("ms", tz="UTC")),
    ]
)
_S3 = "s3://"


@dataclass(frozen=True)
class EventLog:
    """Writes a log. Methods may raise OSError when it cannot be reached or written.

    root: the log's path inside `filesystem`. url: how its user wrote it.
    """

    url: str
    filesystem: pafs.FileSystem
    root: str

    @classmethod
    def open(cls, url: str) -> Self:
        """The log at a directory or an s3:// address; ValueError for another kind of address."""
        if url.startswith(_S3):
            root = url.removeprefix(_S3).strip("/")
            if not root:
                raise ValueError(f"{url!r} names no bucket; write s3://bucket/prefix")
            return cls(url, s3_filesystem(), root)
        if "://" in url:
            raise ValueError(f"{url!r} is neither a directory nor s3://bucket/prefix")
        return cls(url, pafs.LocalFileSystem(), str(Path(url).absolute()))

    def last_id(self) -> str:
        """The id of the newest entry, "0-0" for an empty log."""
        days = self._list(f"{self.root}/{EVENTS}", pafs.FileType.Directory)
        for day in sorted(days, reverse=True):
            ends = [_ids_of(name)[1] for name in self._list(day, pafs.FileType.File)]
            if ends:
                return "{}-{}".format(*max(ends))
        return "0-0"

    def append(self, entries: Sequence[StreamEntry]) -> list[str]:
        """Write the entries, which ascend by id: one file for each day that they fall on.

        Returns the files' paths.
        """
        written = []
        for day, group in groupby(entries, key=_day):
            rows = list(group)
            name = f"{_padded(rows[0].event_id)}_{_padded(rows[-1].event_id)}.parquet"
            written.append(f"{self.root}/{EVENTS}/date={day}/{name}")
            self._write(written[-1], _parquet(_table(rows)))
        return written

    def erase(self, erasures: Mapping[str, Erasure], written: Sequence[str] = ()) -> int:
        """Take the erased users' events out and list the users; returns how many events.

        Every file is looked at for users who are not listed yet, those of `written` for all.
        """
        listed = self.erasures()
        new = {u: e for u, e in erasures.items() if listed.get(u, {}).get("event_id") != e.event_id}
        removed = sum(self._erase_in(path, erasures) for path in written)
        if not new:
            return removed
        removed += sum(self._erase_in(path, new) for path in self._files())
        # Listed last: an erasure that was cut short is done again.
        listed |= {u: {"event_id": e.event_id, "erased_at": e.erased_at} for u, e in new.items()}
        self._write(f"{self.root}/{ERASURES}", json.dumps(listed, indent=1).encode())
        return removed

    def erasures(self) -> dict[str, dict[str, str]]:
        """The listed users with the event_id and the time of their erasure."""
        try:
            with self.filesystem.open_input_stream(f"{self.root}/{ERASURES}") as stream:
                return cast(dict[str, dict[str, str]], json.loads(stream.read()))
        except FileNotFoundError:
            return {}

    def find(self, user_id: str, upto: str) -> list[str]:
        """The files that hold events of the user with ids up to `upto`."""
        erasure = {user_id: Erasure(user_id, upto, "", {})}
        return [path for path in self._files() if _erased(self._read(path), erasure).any()]

    def _erase_in(self, path: str, erasures: Mapping[str, Erasure]) -> int:
        table = self._read(path)
        erased = _erased(table, erasures)
        if erased.any():
            # Under the same name, empty or not: the names say how far the log got.
            self._write(path, _parquet(table.filter(pa.array(~erased))))
        return int(erased.sum())

    def _read(self, path: str) -> pa.Table:
        with self.filesystem.open_input_file(path) as file:
            return pq.ParquetFile(file).read()

    def _files(self) -> list[str]:
        days = self._list(f"{self.root}/{EVENTS}", pafs.FileType.Directory)
        return [path for day in sorted(days) for path in self._list(day, pafs.FileType.File)]

    def _write(self, path: str, content: bytes) -> None:
        directory, _, name = path.rpartition("/")
        local = isinstance(self.filesystem, pafs.LocalFileSystem)
        if local:
            self.filesystem.create_dir(directory, recursive=True)
        # An S3 object appears whole; a local file needs the rename.
        aside = f"{directory}/.{name}.{uuid4().hex}" if local else path
        with self.filesystem.open_output_stream(aside) as stream:
            stream.write(content)
        if local:
            self.filesystem.move(aside, path)

    def _list(self, directory: str, kind: pafs.FileType) -> list[str]:
        found = pafs.FileSelector(directory, allow_not_found=True)
        infos = self.filesystem.get_file_info(found)
        return [i.path for i in infos if i.type == kind and not i.base_name.startswith(".")]


def _day(entry: StreamEntry) -> str:
    return datetime.fromtimestamp(event_order(entry.event_id)[0] / 1000, UTC).date().isoformat()


def _padded(event_id: str) -> str:
    """An id that sorts as text as it does by its numbers."""
    milliseconds, number = event_order(event_id)
    return f"{milliseconds:013d}-{number:06d}"


def _ids_of(path: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """The first and the last id in a file, from its name."""
    first, _, last = Path(path).stem.partition("_")
    return event_order(first), event_order(last)


def _erased(table: pa.Table, erasures: Mapping[str, Erasure]) -> npt.NDArray[np.bool_]:
    """Which rows [N] are of an erased user, up to the erasure."""
    asked = pc.is_in(table["user_id"], pa.array(list(erasures), pa.string()))
    erased = np.asarray(asked, dtype=bool)
    for row in np.flatnonzero(erased):
        erasure = erasures[table["user_id"][row].as_py()]
        after = event_order(table["event_id"][row].as_py()) > event_order(erasure.event_id)
        erased[row] = not after
    return erased


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _table(rows: Sequence[StreamEntry]) -> pa.Table:
    columns = {
        "event_id": [row.event_id for row in rows],
        "user_id": [str(row.event.user_id) for row in rows],
        "item_id": [str(row.event.item_id) for row in rows],
        "event_type": [row.event.event_type.value for row in rows],
        "timestamp": [row.event.timestamp_ms for row in rows],
    }
    return pa.table(columns).cast(SCHEMA)
