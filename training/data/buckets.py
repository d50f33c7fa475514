"""The reduce side of the one shuffle: everything about the users of a bucket, at once.

A bucket's events are ordered, freed of duplicates, split by the per-user temporal split, written
and summed up. What it leaves behind, in the prepared directory:

    events/bucket=0007/held_out=false/part-0000.parquet   before each user's cut-off
    events/bucket=0007/held_out=true/part-0000.parquet    the last fifth of each user's events
    state/users-0007.parquet, state/items-0007.parquet    the sums of both, for --append

Appending takes the sums and the held-out events up again: new events push older ones over the
cut-off, into another part. The events before the cut-off are read only in a bucket to which a new
event comes late, that is not after all of its user's, and when items change their genres.
"""

import pickle
import shutil
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.data.dataset import EVENT_SCHEMA
from training.data.events import DUPLICATE
from training.data.features import ItemSums, UserSums
from training.data.locations import reason
from training.data.shards import reject_table, write_table
from training.data.splits import TEST_SHARE
from training.data.state import (
    items_file,
    read_item_sums,
    read_user_sums,
    users_file,
    write_item_sums,
    write_user_sums,
)


@dataclass(frozen=True)
class Shard:
    """A shard's file and where its rows come from: `row` in it counts from `first_row`."""

    path: str
    file: str
    first_row: int


@dataclass(frozen=True)
class BucketPlan:
    """What a worker must know to make buckets.

    user_ids, item_ids: ids by index. previous: the prepared directory that is appended to.
    previous_genres: for each genre of now, its column in the state of `previous`, or -1.
    same_genres: whether that state counts the genres of now, in their order.
    recategorised: whether items have other genres now than when their events were counted.
    """

    shards: tuple[Shard, ...]
    user_ids: pa.Array
    item_ids: pa.Array
    genres: np.ndarray  # bool [I, G]
    has_time: bool
    staging: Path
    previous: Path | None = None
    previous_genres: np.ndarray | None = None
    same_genres: bool = True
    recategorised: bool = False


@dataclass(frozen=True)
class BucketResult:
    """That a bucket is made, or why it could not be."""

    bucket: int
    problem: str | None = None


@dataclass(frozen=True)
class Events:
    """Parallel arrays [E]. source: index of the shard, or -1 for what was prepared before."""

    user: np.ndarray  # int32
    item: np.ndarray  # int32
    rating: np.ndarray  # float32, NaN: unrated
    time: np.ndarray  # int64, 0 without time
    source: np.ndarray  # int32
    row: np.ndarray  # int32

    def __len__(self) -> int:
        return len(self.user)

    def take(self, chosen: np.ndarray) -> "Events":
        return Events(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @staticmethod
    def join(parts: list["Events"]) -> "Events":
        """All events, in the order of the parts; there is at least one part."""
        columns = (
            np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(Events)
        )
        return Events(*columns)


def make_buckets(batch: pa.Table, plan: BucketPlan) -> pa.Table:
    """One pickled BucketResult for each number in the column `bucket` of `batch`."""
    results = []
    for bucket in batch["bucket"].to_pylist():
        try:
            results.append(_make(bucket, plan))
        except OSError as error:
            problem = f"cannot write in {plan.staging.parent}: {reason(error)}"
            results.append(BucketResult(bucket, problem=problem))
    return pa.table({"result": [pickle.dumps(result) for result in results]})


def _make(bucket: int, plan: BucketPlan) -> BucketResult:
    new = _read_shards(bucket, plan)
    previous = _Previous(plan, bucket)
    if len(new) == 0 and previous.exists and plan.same_genres and not plan.recategorised:
        previous.link()
        return BucketResult(bucket)
    if len(new) == 0 and not previous.exists:
        return BucketResult(bucket)  # no user's hash leads here
    users = np.union1d(previous.users, new.user)
    past = previous.sums(users)
    reread = previous.exists and (
        plan.recategorised or not plan.has_time or _comes_late(new, users, past)
    )
    parts = [previous.read("true"), new]
    if reread:
        parts.insert(0, previous.read("false"))
        past = UserSums.empty(len(users), plan.genres.shape[1])
    pending, repeats = _in_order(Events.join(parts))
    if len(repeats):
        _write_repeats(repeats, bucket, plan)
    held_out = _held_out(pending, users, past.n_events)

    number = 0
    if not reread:
        number = previous.link("false")
    before, after = pending.take(~held_out), pending.take(held_out)
    _write_events(before, bucket, "false", number, plan)
    _write_events(after, bucket, "true", 0, plan)
    sums = [past + _user_sums(before, users, plan), _user_sums(after, users, plan)]
    write_user_sums(users_file(plan.staging, bucket), users, sums)
    items = [_item_sums(part, plan) for part in (before, after)]
    if not reread and previous.exists:
        items[0] = items[0] + previous.item_sums()
    write_item_sums(items_file(plan.staging, bucket), items)
    return BucketResult(bucket)


def _read_shards(bucket: int, plan: BucketPlan) -> Events:
    """The bucket's new events, in the order of the input.

    Ids are looked up once for the whole bucket: a look-up first hashes all ids that there are,
    which for each shard would cost users times shards.
    """
    columns = ("user", "item", "rating", "timestamp", "row")
    parts: dict[str, list[pa.Array]] = {name: [] for name in columns}
    kinds = {"user": plan.user_ids.type, "item": plan.item_ids.type}
    source = [np.zeros(0, np.int32)]
    for index, shard in enumerate(plan.shards):
        with pa.OSFile(shard.path) as file:
            batch = pa.ipc.open_file(file).get_batch(bucket)
        if batch.num_rows == 0:
            continue
        source.append(np.full(batch.num_rows, index, np.int32))
        for name in columns:
            column = batch[name]
            parts[name].append(column.cast(kinds[name]) if name in kinds else column)
    if len(source) == 1:
        return _no_events()
    whole = {name: pa.concat_arrays(arrays) for name, arrays in parts.items()}
    return Events(
        _index(whole["user"], plan.user_ids),
        _index(whole["item"], plan.item_ids),
        whole["rating"].to_numpy(zero_copy_only=False),
        whole["timestamp"].fill_null(0).to_numpy(),
        np.concatenate(source),
        whole["row"].to_numpy(),
    )


def _index(ids: pa.Array, by_index: pa.Array) -> np.ndarray:
    index: np.ndarray = pc.index_in(ids, value_set=by_index).to_numpy().astype(np.int32)
    return index


def _no_events() -> Events:
    kinds = (np.int32, np.int32, np.float32, np.int64, np.int32, np.int32)
    return Events(*(np.zeros(0, kind) for kind in kinds))


def _comes_late(new: Events, users: np.ndarray, past: UserSums) -> bool:
    """Whether a new event is not after all that its user had before the cut-off.

    One of the same time may repeat an event, which only reading them can tell.
    """
    return bool((new.time <= past.last_time[np.searchsorted(users, new.user)]).any())


def _in_order(events: Events) -> tuple[Events, Events]:
    """Events by user and time, first come first; and those that repeat an earlier one."""
    if len(events) == 0:
        return events, events
    least, most = int(events.time.min()), int(events.time.max())
    span = most - least + 1
    first = int(events.user.min())
    if (int(events.user.max()) - first + 1) * span < 2**63:  # else times span ages
        order = np.argsort(
            (events.user - first) * np.int64(span) + (events.time - least), kind="stable"
        )
    else:
        order = np.lexsort((events.time, events.user))
    events = events.take(order)
    repeated = _repeated(events)
    return (
        (events.take(~repeated), events.take(repeated))
        if repeated.any()
        else (
            events,
            events.take(np.zeros(0, np.int64)),
        )
    )


def _repeated(events: Events) -> np.ndarray:
    """Of ordered events those (bool [E]) that equal an earlier one in user, item and time."""
    tied = (events.user[1:] == events.user[:-1]) & (events.time[1:] == events.time[:-1])
    repeated = np.zeros(len(events), dtype=bool)
    if not tied.any():
        return repeated
    in_tie = np.zeros(len(events), dtype=bool)
    in_tie[1:] |= tied
    in_tie[:-1] |= tied
    position = np.flatnonzero(in_tie)
    # A tie has a number of its own; within it, equal items come together, the first come first.
    tie = np.cumsum(np.concatenate([[True], ~tied]))[position]
    order = np.lexsort((events.item[position], tie))
    same = np.ones(len(order) - 1, dtype=bool)
    for column in (tie[order], events.item[position][order]):
        same &= column[1:] == column[:-1]
    repeated[position[order[1:][same]]] = True
    return repeated


def _held_out(events: Events, users: np.ndarray, n_before: np.ndarray) -> np.ndarray:
    """Which of the ordered events are among the last fifth of their user's, bool [E].

    n_before: events of each of `users` that are before the cut-off already.
    """
    local = np.searchsorted(users, events.user)
    pending = np.bincount(local, minlength=len(users))
    rank = np.arange(len(local)) - (np.cumsum(pending) - pending)[local]
    total = n_before + pending
    keep = total - total // TEST_SHARE - n_before
    is_held_out: np.ndarray = rank >= keep[local]
    return is_held_out


def _write_events(
    events: Events, bucket: int, held_out: str, number: int, plan: BucketPlan
) -> None:
    folder = plan.staging / "events" / f"bucket={bucket:04d}" / f"held_out={held_out}"
    if len(events) == 0:
        return
    folder.mkdir(parents=True, exist_ok=True)
    time = pa.array(events.time) if plan.has_time else pa.nulls(len(events), pa.int64())
    rating = pa.array(events.rating, from_pandas=True)
    table = pa.table([events.user, events.item, rating, time], schema=EVENT_SCHEMA)
    pq.write_table(
        table,
        folder / f"part-{number:04d}.parquet",
        use_dictionary=["rating"],
        column_encoding=dict.fromkeys(("user_idx", "item_idx", "timestamp"), "DELTA_BINARY_PACKED"),
    )


def _write_repeats(events: Events, bucket: int, plan: BucketPlan) -> None:
    """Add repeats to the rejects; each is a new event, since what was prepared has none."""
    order = np.lexsort((events.row, events.source))
    events = events.take(order)
    first = np.array([shard.first_row for shard in plan.shards])
    table = pa.table(
        {
            "user": plan.user_ids.take(pa.array(events.user)),
            "item": plan.item_ids.take(pa.array(events.item)),
            "rating": pa.array(events.rating, from_pandas=True),
            "timestamp": pa.array(events.time)
            if plan.has_time
            else pa.nulls(len(events), pa.int64()),
        }
    )
    files = [plan.shards[index].file for index in events.source.tolist()]
    rows = events.row.astype(np.int64) + first[events.source]
    rejects = reject_table(table, files, rows, [DUPLICATE] * len(events))
    write_table(rejects, plan.staging / "rejects" / f"bucket-{bucket:04d}.parquet")


def _user_sums(events: Events, users: np.ndarray, plan: BucketPlan) -> UserSums:
    return UserSums.of(
        np.searchsorted(users, events.user),
        events.item,
        events.rating,
        events.time if plan.has_time else None,
        n_users=len(users),
        genres=plan.genres,
    )


def _item_sums(events: Events, plan: BucketPlan) -> ItemSums:
    time = events.time if plan.has_time else None
    return ItemSums.of(events.item, events.rating, time, n_items=len(plan.item_ids))


class _Previous:
    """A bucket of the directory that is appended to, if there is one."""

    def __init__(self, plan: BucketPlan, bucket: int) -> None:
        self._plan, self._bucket = plan, bucket
        self.exists = False
        self.users = np.zeros(0, np.int32)
        if plan.previous is None or plan.previous_genres is None:
            return
        self._previous, self._previous_genres = plan.previous, plan.previous_genres
        self._users_file = users_file(plan.previous, bucket)
        self._items_file = items_file(plan.previous, bucket)
        self._folder = plan.previous / "events" / f"bucket={bucket:04d}"
        self.exists = self._users_file.exists()
        if self.exists:
            self.users, self._sums = read_user_sums(self._users_file, False)

    def sums(self, users: np.ndarray) -> UserSums:
        """The sums before the cut-off, for each of `users`, which include all it has."""
        n_genres = self._plan.genres.shape[1]
        sums = UserSums.empty(len(users), n_genres)
        if not self.exists:
            return sums
        row = np.searchsorted(users, self.users)
        for field in fields(UserSums)[:-1]:
            getattr(sums, field.name)[row] = getattr(self._sums, field.name)
        kept = np.flatnonzero(self._previous_genres >= 0)
        counts = self._sums.genre_counts[:, self._previous_genres[kept]]
        sums.genre_counts[np.ix_(row, kept)] = counts
        return sums

    def item_sums(self) -> ItemSums:
        return read_item_sums(self._items_file, False, len(self._plan.item_ids))

    def read(self, held_out: str) -> Events:
        """The prepared events on one side of the cut-off."""
        files = (
            sorted((self._folder / f"held_out={held_out}").glob("*.parquet")) if self.exists else []
        )
        if not files:
            return _no_events()
        table = pa.concat_tables(
            pq.read_table(file, schema=EVENT_SCHEMA, partitioning=None) for file in files
        )
        return Events(
            table["user_idx"].to_numpy(),
            table["item_idx"].to_numpy(),
            table["rating"].to_numpy(),
            table["timestamp"].fill_null(0).to_numpy(),
            np.full(table.num_rows, -1, np.int32),
            np.zeros(table.num_rows, np.int32),
        )

    def link(self, held_out: str | None = None) -> int:
        """Take files over as they are: the events on one side, or everything. Returns how many."""
        if not self.exists:
            return 0
        chosen = f"held_out={held_out}" if held_out else "held_out=*"
        files = sorted(self._folder.glob(f"{chosen}/*.parquet"))
        if held_out is None:
            files += [self._users_file, self._items_file]
        for file in files:
            target = self._plan.staging / file.relative_to(self._previous)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                target.hardlink_to(file)
            except OSError:  # a file system without links, or another one
                shutil.copyfile(file, target)
        return len(files)
