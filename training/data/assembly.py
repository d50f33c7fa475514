"""The tables and figures of a prepared directory, put together from what the workers left."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.data.dataset import FORMAT
from training.data.events import DUPLICATE, TIME_IN_FUTURE
from training.data.features import ITEM_FEATURES, ItemSums, UserSums, genre_matrix
from training.data.shards import REJECT_SCHEMA
from training.data.sources import Source
from training.data.splits import TEST_SHARE
from training.data.state import STATE, add_item_sums, read_both_user_sums
from training.errors import UserError

FIRST_ROWS = 5  # of each reason, named when too many events are rejected


@dataclass(frozen=True)
class Sums:
    """All sums, on both sides of the cut-off."""

    users_before: UserSums
    users_after: UserSums
    items_before: ItemSums
    items_after: ItemSums


def distinct_ids(parts: list[pa.Array], known: pa.Array | None = None) -> pa.Array:
    """The distinct ids of all parts, ascending; after `known`, when given, in its own order.

    Numbers when all are numbers, else texts.
    """
    arrays = [*parts, *([known] if known is not None else [])]
    if any(not pa.types.is_integer(array.type) for array in arrays):
        kind = pa.string()
    else:
        kind = pa.int64()
    found = pa.chunked_array([array.cast(kind) for array in parts], kind).unique()
    if known is None:
        return found.take(pc.sort_indices(found))
    known = known.cast(kind)
    new = found.filter(pc.invert(pc.is_in(found, value_set=known)))
    return pa.concat_arrays([known, new.take(pc.sort_indices(new))])


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


def collect_rejects(staging: Path, first_rows: dict[int, int]) -> pa.Table:
    """All rejected events, in the order of the input.

    first_rows: for each chunk the row in its file that its rows are counted from.
    """
    tables = []
    for path in sorted((staging / "rejects").glob("*.parquet")):
        table = pq.read_table(path)
        kind, number = path.stem.split("-")
        if kind == "chunk":
            rows = pc.add(table["row"], first_rows[int(number)])
            table = table.set_column(table.schema.get_field_index("row"), "row", rows)
        tables.append(table)
    rejects = pa.concat_tables(tables or [REJECT_SCHEMA.empty_table()])
    return rejects.sort_by([("file", "ascending"), ("row", "ascending")])


def check_rejects(rejects: pa.Table, n_valid: int, max_share: float) -> None:
    """UserError when more than `max_share` of all events are rejected, or none is left.

    n_valid: events that passed the first check (duplicates, found later, are among them).
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
    limit = f"more than {100 * max_share:g}%" if n_valid else "and none is left"
    raise UserError(
        f"{n_rejected} of {total} events are rejected, {limit}: {'; '.join(named)}. Instead: {hint}"
    )


def count_reasons(rejects: pa.Table) -> dict[str, int]:
    """Rejected events by reason, most frequent first."""
    counts = pc.value_counts(rejects["reason"]).to_pylist()
    counts.sort(key=lambda entry: (-entry["counts"], entry["values"]))
    return {entry["values"]: entry["counts"] for entry in counts}


def total_sums(staging: Path, n_users: int, n_items: int, n_genres: int) -> Sums:
    """The sums of all buckets, for each user_idx and item_idx."""
    with ThreadPoolExecutor(2) as pool:  # Arrow reads and numpy adds without Python's lock
        users = pool.submit(_total_user_sums, staging, n_users, n_genres)
        items = pool.submit(_total_item_sums, staging, n_items)
        users_before, users_after = users.result()
        items_before, items_after = items.result()
    return Sums(users_before, users_after, items_before, items_after)


def _total_user_sums(staging: Path, n_users: int, n_genres: int) -> list[UserSums]:
    sums = [UserSums.empty(n_users, n_genres) for _ in range(2)]
    for path in (staging / STATE).glob("users-*.parquet"):
        for total, (index, part) in zip(sums, read_both_user_sums(path), strict=True):
            for name in UserSums.__dataclass_fields__:
                getattr(total, name)[index] = getattr(part, name)
    return sums


def _total_item_sums(staging: Path, n_items: int) -> list[ItemSums]:
    sums = [ItemSums.empty(n_items) for _ in range(2)]
    for path in sorted((staging / STATE).glob("items-*.parquet")):
        add_item_sums(sums, path)
    return sums


def write_tables(
    staging: Path, user_ids: pa.Array, items: pa.Table, names: list[str], sums: Sums
) -> UserSums:
    """users, items and both tables of features before the cut-off; returns the users' sums.

    users.parquet and items.parquet describe the data set as it is now, with all events;
    user_features.parquet and item_features.parquet know nothing of the held-out ones.
    """
    everything = sums.users_before + sums.users_after
    users = everything.features(names, everything.now).add_column(0, "user_id", user_ids)
    before = sums.users_before.features(names, sums.users_before.now)
    pq.write_table(users, staging / "users.parquet")
    totals = everything.totals().add_column(0, "user_id", user_ids)
    pq.write_table(totals, staging / "user_totals.parquet")
    pq.write_table(before.add_column(0, "user_id", user_ids), staging / "user_features.parquet")

    described = items
    features = (sums.items_before + sums.items_after).features()
    for name in features.column_names:
        described = described.append_column(name, features[name])
    pq.write_table(described, staging / "items.parquet")
    table = sums.items_before.features().add_column(0, "item_id", items["item_id"])
    table = table.append_column("year", items["year"])
    genres, hot = genre_matrix(items["genres"].to_pylist())
    for column, name in enumerate(genres):
        table = table.append_column(f"genre:{name}", pa.array(hot[:, column]))
    pq.write_table(table, staging / "item_features.parquet")
    return everything


def statistics_of(
    source: Source, users: UserSums, items: pa.Table, sums: Sums, rejects: pa.Table
) -> dict[str, Any]:
    """What statistics.json says, but for the fingerprint and the layout.

    users: the sums over all events. items: the catalogue by item_idx.
    """
    n_items = sums.items_before.n_events + sums.items_after.n_events
    per_item = n_items[n_items > 0]
    n_events, warm = int(users.n_events.sum()), len(per_item)
    has_time = users.now is not None
    return {
        "format": FORMAT,
        "entity": source.entity,
        "verb": source.verb,
        "shape": source.shape,
        "counts": {
            "events": n_events,
            "users": len(users.n_events),
            "items": len(n_items),
            "items_with_events": warm,
            "rejected": rejects.num_rows,
        },
        "items_without_description": _undescribed(items),
        "split": {
            "protocol": "user-temporal",
            "held_out_share": 1 / TEST_SHARE,
            "before": int(sums.users_before.n_events.sum()),
            "held_out": int(sums.users_after.n_events.sum()),
        },
        "sparsity": 1 - n_events / (len(users.n_events) * warm),
        "events_per_user": _quartiles(users.n_events),
        "events_per_item": _quartiles(per_item),
        "rating": _rating_statistics(users),
        "time_range": [int(users.first_time.min()), int(users.last_time.max())]
        if has_time
        else None,
        "rejected": count_reasons(rejects),
    }


def _undescribed(items: pa.Table) -> int:
    """Items of which nothing but the id is known."""
    untitled = pc.equal(items["title"], items["item_id"].cast(pa.string()))
    without_genres = pc.equal(pc.list_value_length(items["genres"]), 0)
    return int(pc.sum(pc.and_(untitled, without_genres)).as_py() or 0)


def _rating_statistics(users: UserSums) -> dict[str, float] | None:
    n_rated = users.n_rated.sum()
    if n_rated == 0:
        return None
    mean = users.rating_sum.sum() / n_rated
    variance = users.rating_square_sum.sum() / n_rated - mean**2
    return {
        "rated_events": int(n_rated),
        "mean": float(mean),
        "std": float(np.sqrt(max(variance, 0.0))),
        "min": float(users.rating_min.min()),
        "max": float(users.rating_max.max()),
    }


def _quartiles(counts: np.ndarray) -> dict[str, float]:
    least, low, median, high, most = np.quantile(counts, [0, 0.25, 0.5, 0.75, 1]).tolist()
    return {"min": least, "q1": low, "median": median, "q3": high, "max": most}
