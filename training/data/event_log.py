"""The service's event log as events to learn from: what `--append LOG` and `--log LOG` read.

The service writes LOG/events/date=.../*.parquet with event_id, user_id, item_id, event_type and
timestamp (docs/events.md). Clicks, watches and likes are what a model should have foreseen. Views
are not: they follow from what was offered, and a model that learns them learns its own slates.
A dislike takes back what the user did with the item before.
"""

import json
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.data.columns import whole_number_texts
from training.data.dataset import read_statistics
from training.data.locations import (
    file_size,
    is_directory,
    join,
    list_files,
    open_file,
    read_bytes,
    reason,
)
from training.data.sources import Source, generic
from training.errors import UserError
from training.model.manifest import VERB
from training.model.user_features import POSITIVE_EVENTS, WITHDRAWN_BY

NOTHING_READ = "0-0"


@dataclass(frozen=True)
class Erased:
    """An erasure: the event id that it came after, and its time in unix seconds."""

    event_id: str
    before: int


_COLUMNS = ["event_id", "user_id", "item_id", "event_type", "timestamp"]


def is_log(address: str) -> bool:
    """Whether an event log is there."""
    return is_directory(join(address, "events")) and any(
        "/date=" in path for path in list_files(join(address, "events"))
    )


def log_source(address: str, aside: Path, *, into: Path | None = None) -> Source | None:
    """What the log adds to the prepared directory `into`, as a source; None for nothing.

    aside: an existing directory for the file that the source reads. Without `into` it is the
    whole log. The source says how far it reaches (`log_position`), which `prepare` keeps.
    """
    statistics = read_statistics(into) if into else {}
    after = statistics.get("event_log") or NOTHING_READ
    if into:
        check_erased(address, into)
    entries = _without(read_entries(address), read_erasures(address))
    found = positives(entries)
    found = found.filter(pa.array(_numbers(found["event_id"]) > _number(after)))
    if not found.num_rows:
        return None
    path = aside / "events.parquet"
    pq.write_table(_with_ids(found), path)
    source = generic(
        str(path),
        user="user_id",
        item="item_id",
        time="timestamp",
        entity=statistics.get("entity", "item"),
        verb=statistics.get("verb", VERB),
    )
    newest = int(_numbers(entries["event_id"]).argmax())
    source = leave_out(source, address)
    # Its events are without the erased users already: a file of its own has no times to judge by.
    return replace(source, erased=(), log_position=entries["event_id"][newest].as_py())


def read_erasures(address: str) -> dict[str, Erased]:
    """The users whom the service erased, by their ids as texts; none without a list."""
    path = join(address, "erasures.json")
    if file_size(path) is None:
        return {}
    try:
        listed = json.loads(read_bytes(path))
        return {user: Erased(entry["event_id"], _seconds(entry)) for user, entry in listed.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a list of erased users: export it again") from error


def leave_out(source: Source, address: str) -> Source:
    """The source without what the erased users of a log did before they were erased."""
    erased = read_erasures(address)
    return replace(
        source,
        erased=tuple((user, entry.before) for user, entry in erased.items()),
        erasures=max((entry.event_id for entry in erased.values()), key=_number, default=None),
    )


def check_erased(address: str, into: Path) -> None:
    """UserError when the prepared directory `into` holds users who were erased since."""
    respected = _number(read_statistics(into).get("erasures") or NOTHING_READ)
    new = [u for u, e in read_erasures(address).items() if _number(e.event_id) > respected]
    users = pq.read_table(into / "users.parquet", columns=["user_id"])["user_id"]
    held = int(pc.sum(pc.is_in(users.cast(pa.string()), pa.array(new, pa.string()))).as_py() or 0)
    if held:
        raise UserError(
            f"{into} holds {held} users who were erased since: prepare it once more as a whole, "
            f"with --erasures {address}"
        )


def read_entries(address: str) -> pa.Table:
    """All entries of the log, each once, in the order of their ids."""
    tables = []
    for path in list_files(join(address, "events")):
        try:
            tables.append(pq.read_table(open_file(path), columns=_COLUMNS))
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} is not a part of an event log: {reason(error)}") from error
    entries = pa.concat_tables(tables).combine_chunks()
    # Unique and ascending: what two writers both wrote is there once.
    first = np.unique(_numbers(entries["event_id"]), return_index=True)[1]
    return entries.take(pa.array(first))


def _without(entries: pa.Table, erased: dict[str, Erased]) -> pa.Table:
    """The entries that no erasure came after. The log's writer takes them out in its time."""
    ids = _numbers(entries["event_id"])
    kept = np.ones(len(ids), dtype=bool)
    listed = pc.is_in(entries["user_id"], pa.array(list(erased), pa.string()))
    for row in np.flatnonzero(listed.to_numpy(zero_copy_only=False)):
        kept[row] = ids[row] > _number(erased[entries["user_id"][row].as_py()].event_id)
    return entries.filter(pa.array(kept))


def positives(entries: pa.Table) -> pa.Table:
    """The first positive event of every user with every item, unless a dislike came after it all.

    entries: in the order of their ids.
    """
    kind = entries["event_type"]
    user, item = (
        entries[name].combine_chunks().dictionary_encode() for name in ("user_id", "item_id")
    )
    pair = user.indices.to_numpy().astype(np.int64) * len(item.dictionary)
    pair += item.indices.to_numpy()
    disliked = np.asarray(pc.equal(kind, WITHDRAWN_BY))
    newest = len(pair) - 1 - np.unique(pair[::-1], return_index=True)[1]
    withdrawn = np.isin(pair, pair[newest[disliked[newest]]])
    wanted = np.asarray(pc.is_in(kind, pa.array(POSITIVE_EVENTS))) & ~withdrawn
    rows = np.flatnonzero(wanted)
    first = rows[np.unique(pair[rows], return_index=True)[1]]
    return entries.take(pa.array(np.sort(first)))


def _seconds(entry: dict[str, str]) -> int:
    return int(datetime.fromisoformat(entry["erased_at"]).timestamp())


def _with_ids(entries: pa.Table) -> pa.Table:
    """The entries with ids as numbers where all are: the stream knows texts only."""
    for name in ("user_id", "item_id"):
        numbers = whole_number_texts(entries[name].combine_chunks())
        if numbers is not None:
            index = entries.schema.get_field_index(name)
            entries = entries.set_column(index, name, numbers)
    return entries


def _numbers(event_ids: pa.ChunkedArray) -> np.ndarray:
    """Event ids as numbers in the same order, uint64 [E]."""
    return np.fromiter(map(_number, event_ids.to_pylist()), np.uint64, len(event_ids))


def _number(event_id: str) -> int:
    """42 bits of milliseconds, good for 139 years, and 22 of the number within one."""
    milliseconds, _, number = event_id.partition("-")
    return int(milliseconds) << 22 | int(number)
