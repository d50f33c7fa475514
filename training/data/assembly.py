"""The tables and figures of a prepared directory, put together from what the workers wrote."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.data.columns import whole_number_texts
from training.data.dataset import FORMAT
from training.data.events import DUPLICATE, TIME_IN_FUTURE
from training.data.features import ITEM_FEATURES, ItemSums
from training.data.partitions import ITEM_SUM_COLUMNS, REJECT_SCHEMA, BucketPlan, Numbering
from training.data.sources import EventFile, Source
from training.errors import UserError

FIRST_ROWS = 5  # of each reason, named when too many events are rejected


@dataclass(frozen=True)
class Summary:
    """What the first pass found in the valid events."""

    n_events: int
    users: pa.Array  # distinct ids as read
    items: pa.Array
    days: np.ndarray  # distinct days since 1970, ascending; empty without time
    day_counts: np.ndarray
    first_time: int | None
    last_time: int | None


def summarise(staging: Path) -> Summary:
    """Merge the summaries of the chunks; UserError for the first that could not be read."""
    parts = [pq.read_table(path) for path in sorted((staging / "chunks").glob("*.parquet"))]
    for part in parts:
        if "problem" in part.column_names:
            raise UserError(part["problem"][0].as_py())
    table = pa.concat_tables(parts)
    day = pc.list_flatten(table["days"]).to_numpy()
    counts = pc.list_flatten(table["day_counts"]).to_numpy()
    days, position = np.unique(day, return_inverse=True)
    return Summary(
        n_events=pc.sum(table["n_events"]).as_py(),
        users=_distinct(table["users"]),
        items=_distinct(table["items"]),
        days=days,
        day_counts=np.bincount(position, counts, minlength=len(days)).astype(np.int64),
        first_time=pc.min(table["first_time"]).as_py(),
        last_time=pc.max(table["last_time"]).as_py(),
    )


def number_ids(
    summary: Summary, file: EventFile, catalogue: pa.Table | None
) -> tuple[Numbering, Numbering]:
    """Dense indices of users and of items, in ascending order of their ids.

    Items are those of the events and of the catalogue. Ids of a delimited file that are all
    plain whole numbers are numbers; users and items are judged apart.
    """
    users = _as_numbers(summary.users, file)
    items = _as_numbers(summary.items, file)
    all_items = items
    if catalogue is not None:
        described = catalogue["item_id"].combine_chunks()
        if described.type != items.type:  # text on one side: compare as text
            described, items = described.cast(pa.string()), items.cast(pa.string())
        all_items = pa.concat_arrays([items, described]).unique()
    return _numbering(summary.users, users, users), _numbering(summary.items, items, all_items)


def item_catalogue(catalogue: pa.Table | None, item_ids: pa.Array) -> pa.Table:
    """One row for each id of `item_ids`; items without metadata get their id for a title."""
    id_text = item_ids.cast(pa.string())
    if catalogue is None:
        no_genres = pa.array([[]] * len(item_ids), pa.list_(pa.string()))
        no_year = pa.nulls(len(item_ids), pa.int32())
        columns = [item_ids, id_text, id_text, no_genres, no_year]
        return pa.table(columns, ["item_id", "title", "name", "genres", "year"])
    for name in ITEM_FEATURES:
        if name in catalogue.column_names:
            raise UserError(f"the items have a column {name!r}, which Marquee adds: rename it")
    described = catalogue["item_id"].combine_chunks().cast(item_ids.type)
    rows = pc.index_in(item_ids, value_set=described)  # null: not described
    table = catalogue.take(rows).set_column(
        catalogue.schema.get_field_index("item_id"), "item_id", item_ids
    )
    for name, missing in (("title", id_text), ("name", id_text)):
        filled = pc.coalesce(table[name], missing)
        table = table.set_column(table.schema.get_field_index(name), name, filled)
    genres = pa.array([row or [] for row in table["genres"].to_pylist()], pa.list_(pa.string()))
    return table.set_column(table.schema.get_field_index("genres"), "genres", genres)


def collect_rejects(staging: Path) -> pa.Table:
    """All rejected events, in the order of the input."""
    paths = sorted((staging / "rejects").glob("*.parquet"))
    tables = [pq.read_table(path) for path in paths] or [REJECT_SCHEMA.empty_table()]
    return pa.concat_tables(tables).sort_by("row")


def check_rejects(rejects: pa.Table, n_valid: int, max_share: float) -> None:
    """UserError when more than `max_share` of all events are rejected, or none is left.

    n_valid: events that passed the first pass (duplicates, found later, are among them).
    """
    n_rejected = rejects.num_rows
    late = count_reasons(rejects).get(DUPLICATE, 0)
    total = n_valid + n_rejected - late
    if n_valid and n_rejected <= max_share * total:
        return
    reasons = rejects["reason"].to_numpy()
    named = []
    for reason, count in count_reasons(rejects).items():
        rows = rejects["row"].to_numpy()[reasons == reason][:FIRST_ROWS]
        more = ", ..." if count > len(rows) else ""
        named.append(f"{reason}: {count} (rows {', '.join(map(str, rows))}{more})")
    hint = "mend the input or raise --max-rejects"
    if TIME_IN_FUTURE in reasons:
        hint = f"times must be unix seconds, not milliseconds; {hint}"
    raise UserError(
        f"{n_rejected} of {total} events are rejected, more than {100 * max_share:g}%: "
        f"{'; '.join(named)}. Instead: {hint}"
    )


def count_reasons(rejects: pa.Table) -> dict[str, int]:
    """Rejected events by reason, most frequent first."""
    counts = pc.value_counts(rejects["reason"]).to_pylist()
    counts.sort(key=lambda entry: (-entry["counts"], entry["values"]))
    return {entry["values"]: entry["counts"] for entry in counts}


def describe_users(staging: Path, plan: BucketPlan) -> pa.Table:
    """user_id and USER_FEATURES; the buckets are ranges of users, in order."""
    paths = sorted((staging / "users").glob("*.parquet"))
    features = pa.concat_tables([pq.read_table(path) for path in paths])
    return features.add_column(0, "user_id", plan.users.ids)


def total_item_sums(staging: Path, n_items: int) -> ItemSums:
    """The sums over all buckets, each [I]."""
    totals = {name: np.zeros(n_items) for name in ITEM_SUM_COLUMNS}
    for path in sorted((staging / "items").glob("*.parquet")):
        part = pq.read_table(path)
        index = part["item_idx"].to_numpy()
        for name, total in totals.items():
            total[index] += part[name].to_numpy()
    return ItemSums(**totals)


def describe_items(items: pa.Table, sums: ItemSums) -> pa.Table:
    """The catalogue followed by ITEM_FEATURES."""
    features = sums.features()
    for name in features.column_names:
        items = items.append_column(name, features[name])
    return items


def statistics_of(
    source: Source, summary: Summary, users: pa.Table, sums: ItemSums, rejects: pa.Table
) -> dict[str, Any]:
    """What statistics.json says, but for the fingerprint."""
    per_user = users["n_events"].to_numpy()
    per_item = sums.n_events[sums.n_events > 0]
    n_events, warm = int(per_user.sum()), len(per_item)
    has_time = summary.last_time is not None
    return {
        "format": FORMAT,
        "entity": source.entity,
        "shape": source.shape,
        "counts": {
            "events": n_events,
            "users": users.num_rows,
            "items": len(sums.n_events),
            "items_with_events": warm,
            "rejected": rejects.num_rows,
        },
        "sparsity": 1 - n_events / (users.num_rows * warm),
        "events_per_user": _quartiles(per_user),
        "events_per_item": _quartiles(per_item),
        "rating": _rating_statistics(users, sums),
        "time_range": [summary.first_time, summary.last_time] if has_time else None,
        "rejected": count_reasons(rejects),
    }


def _rating_statistics(users: pa.Table, sums: ItemSums) -> dict[str, float] | None:
    n_rated = sums.n_rated.sum()
    if n_rated == 0:
        return None
    mean = sums.rating_sum.sum() / n_rated
    variance = sums.rating_square_sum.sum() / n_rated - mean**2
    return {
        "rated_events": int(n_rated),
        "mean": float(mean),
        "std": float(np.sqrt(max(variance, 0.0))),
        "min": pc.min(users["rating_min"]).as_py(),
        "max": pc.max(users["rating_max"]).as_py(),
    }


def _quartiles(counts: np.ndarray) -> dict[str, float]:
    least, low, median, high, most = np.quantile(counts, [0, 0.25, 0.5, 0.75, 1]).tolist()
    return {"min": least, "q1": low, "median": median, "q3": high, "max": most}


def _distinct(lists: pa.ChunkedArray) -> pa.Array:
    return pc.list_flatten(lists).combine_chunks().unique()


def _as_numbers(ids: pa.Array, file: EventFile) -> pa.Array:
    numbers = None
    if file.delimiter is not None and pa.types.is_string(ids.type):
        numbers = whole_number_texts(ids)
    return ids if numbers is None else numbers


def _numbering(keys: pa.Array, ids: pa.Array, all_ids: pa.Array) -> Numbering:
    ascending = all_ids.take(pc.sort_indices(all_ids))
    index = pc.index_in(ids, value_set=ascending).to_numpy().astype(np.int32)
    return Numbering(keys, index, ascending)
