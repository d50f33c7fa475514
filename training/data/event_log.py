"""The service's event log as events to learn from: what `--append LOG` and `--log LOG` read.

The service writes LOG/events/date=.../*.parquet with event_id, user_id, item_id, event_type and
timestamp (docs/events.md). Clicks, watches and likes are what a model should have foreseen. Views
are not: they follow from what was offered, and a model that learns them learns its own slates.
A dislike takes back what the user did with the item before.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.data.columns import whole_number_texts
from training.data.dataset import read_statistics
from training.data.locations import is_directory, join, list_files, open_file, reason
from training.data.sources import Source, generic
from training.errors import UserError

POSITIVE_EVENTS = ("click", "watch", "like")
WITHDRAWN_BY = "dislike"
NOTHING_READ = "0-0"
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
    entries = read_entries(address)
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
    )
    newest = int(_numbers(entries["event_id"]).argmax())
    return replace(source, log_position=entries["event_id"][newest].as_py())


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
