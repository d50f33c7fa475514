"""The offline feature store: users of a prepared directory, read for the online one.

DATA/user_totals.parquet   sums over all events, by user_idx
DATA/events/               all events; their items are the histories and the seen sets
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from app.domain import Erasure, StoredUser, UserId, event_order
from training.model.user_features import UserTotals

_NEVER = "0-0"
_TOTALS = tuple(UserTotals.__dataclass_fields__)


class OfflineError(Exception):
    """The directory is not prepared data with times; the message is one line."""


def read_users(data: Path, erasures: Mapping[str, Erasure]) -> Iterator[tuple[UserId, StoredUser]]:
    """Every user of the data, but for those who were erased since it was prepared.

    Memory: the tables of users and of items, and one bucket of events. Raises OfflineError.
    """
    try:
        statistics: dict[str, Any] = json.loads((data / "statistics.json").read_bytes())
        totals = pq.read_table(data / "user_totals.parquet")
        items = pq.read_table(data / "items.parquet", columns=["item_id"])["item_id"]
        buckets = sorted((data / "events").glob("bucket=*"))
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise OfflineError(f"{data} is not prepared data: {reason}; prepare it again") from error
    if not statistics.get("time_range"):
        raise OfflineError(f"{data} has no times: its features say nothing of now")
    position = statistics.get("event_log") or _NEVER
    respected = event_order(statistics.get("erasures") or _NEVER)
    gone = {u for u, e in erasures.items() if event_order(e.event_id) > respected}
    item_ids = np.array(items.to_pylist(), dtype=object)
    user_ids = totals["user_id"].to_pylist()
    sums = np.stack([totals[name].to_numpy() for name in _TOTALS], axis=1).tolist()
    for bucket in buckets:
        for user, events in _histories(bucket):
            if str(user_ids[user]) not in gone:
                stored = StoredUser(
                    statistics["time_range"][1],
                    position,
                    tuple(sums[user]),
                    tuple(item_ids[events].tolist()),
                )
                yield user_ids[user], stored


def _histories(bucket: Path) -> Iterator[tuple[int, npt.NDArray[np.int32]]]:
    """(user_idx, item_idx of the user's events, oldest first) of a bucket."""
    # A user's events follow each other in the files as their names sort, and within them.
    files = sorted(bucket.glob("**/*.parquet"))
    if not files:
        return
    columns = ["user_idx", "item_idx"]
    events = pa.concat_tables([pq.ParquetFile(file).read(columns=columns) for file in files])
    user, item = (events[name].to_numpy() for name in columns)
    order = np.argsort(user, kind="stable")
    user, item = user[order], item[order]
    starts = np.flatnonzero(np.diff(user, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(user)], strict=True):
        yield int(user[start]), item[start:stop]
