"""`marquee prepare`: validate, number the ids, order by user, describe, write Parquet.

Two passes of Ray Data: one over chunks of the input, then, with all ids known, one shuffle by
ranges of users, inside which everything about a user is computed at once and what is about items
is summed up. dataset.py reads the result.
"""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.data.assembly import (
    Summary,
    check_rejects,
    collect_rejects,
    describe_items,
    describe_users,
    item_catalogue,
    number_ids,
    statistics_of,
    summarise,
    total_item_sums,
)
from training.data.catalogue import read_catalogue
from training.data.events import CHUNK_BYTES, Limits, Scan, scan
from training.data.features import genre_matrix, halving_moment
from training.data.output import staged_directory
from training.data.partitions import (
    BucketPlan,
    ChunkPlan,
    check_chunks,
    number_events,
    write_buckets,
)
from training.data.ray_session import ray_session
from training.data.sources import Source

if TYPE_CHECKING:
    import ray
    import ray.data

EVENTS_PER_BUCKET = 500_000
STORE_BYTES_PER_EVENT = 100  # events once as read and once shuffled, with room to spare
CODE_VERSION = 1  # raise it when the same input would be prepared to something else
MARKER = "statistics.json"
STAGED = ("chunks", "rejects", "users", "items")
"""Folders of intermediate files, removed before the directory is renamed into place."""


def prepare(
    source: Source,
    out: Path,
    *,
    max_rejects: float = 0.01,
    report: Callable[[str], None] = lambda step: None,
    chunk_bytes: int = CHUNK_BYTES,
    events_per_bucket: int = EVENTS_PER_BUCKET,
) -> dict[str, Any]:
    """Write the prepared directory `out` and return its statistics.

    max_rejects: the share of events that may be rejected before the input is refused.
    report: is told each step as it begins.
    UserError for an input that cannot be understood or an `out` that is not ours to replace;
    `out` is then as it was.
    """
    with staged_directory(out, marker=MARKER) as staging:
        for folder in STAGED:
            (staging / folder).mkdir()
        report("Scanning the input")
        scanned = scan(source.events, chunk_bytes)
        catalogue = read_catalogue(source.catalogue) if source.catalogue else None
        report("Starting Ray")
        with ray_session(scanned.n_rows * STORE_BYTES_PER_EVENT) as n_cpus, _quiet_ray_data():
            report("Reading and checking events")
            checked = _check_events(source, scanned, staging)
            summary = summarise(staging)
            check_rejects(collect_rejects(staging), summary.n_events, max_rejects)
            report("Grouping events by user")
            plan, items = _plan(source, summary, catalogue, events_per_bucket, staging)
            _write_events(checked, plan, n_cpus)
        rejects = collect_rejects(staging)
        check_rejects(rejects, summary.n_events, max_rejects)
        report("Writing users, items and statistics")
        users = describe_users(staging, plan)
        sums = total_item_sums(staging, items.num_rows)
        statistics = statistics_of(source, summary, users, sums, rejects)
        statistics["fingerprint"] = _fingerprint(source, scanned)
        pq.write_table(users, staging / "users.parquet")
        pq.write_table(describe_items(items, sums), staging / "items.parquet")
        pq.write_table(rejects, staging / "rejects.parquet")
        for folder in STAGED:
            shutil.rmtree(staging / folder)
        (staging / MARKER).write_text(json.dumps(statistics, indent=2) + "\n", "utf-8")
    return statistics


def _plan(
    source: Source,
    summary: Summary,
    catalogue: pa.Table | None,
    events_per_bucket: int,
    staging: Path,
) -> tuple[BucketPlan, pa.Table]:
    """What the second pass must know, and the catalogue with a row for each item_idx."""
    users, item_numbering = number_ids(summary, source.events, catalogue)
    items = item_catalogue(catalogue, item_numbering.ids)
    names, genres = genre_matrix(items["genres"].to_pylist())
    plan = BucketPlan(
        users=users,
        items=item_numbering,
        n_buckets=min(-(-summary.n_events // events_per_bucket), len(users.ids)),
        genre_names=names,
        genres=genres,
        now=summary.last_time,
        halved_at=halving_moment(summary.days, summary.day_counts),
        staging=staging,
    )
    return plan, items


def _check_events(source: Source, scanned: Scan, staging: Path) -> "ray.data.Dataset":
    """Valid events as blocks in the object store, one for each chunk."""
    import ray.data

    plan = ChunkPlan(source.events, Limits(source.rating_range, int(time.time())), staging)
    chunks = [asdict(chunk) for chunk in scanned.chunks]
    return (
        ray.data.from_items(chunks, override_num_blocks=len(chunks))
        .map_batches(check_chunks, batch_size=1, batch_format="pyarrow", fn_kwargs={"plan": plan})
        .materialize()
    )


def _write_events(checked: "ray.data.Dataset", plan: BucketPlan, n_cpus: int) -> None:
    """Shuffle once by bucket; each bucket is then written by one worker."""
    import ray

    shared = ray.put(plan)  # shipped to each worker once, not with each task
    # Ray's default of 200 partitions is made for clusters: it costs seconds on small data.
    n_partitions = min(plan.n_buckets, 4 * n_cpus)
    whole_blocks: dict[str, Any] = {
        "batch_format": "pyarrow",
        "batch_size": None,
        "fn_kwargs": {"shared": shared},
    }
    (
        checked.map_batches(_number_events, **whole_blocks)
        .repartition(n_partitions, keys=["bucket"])
        .map_batches(_write_buckets, **whole_blocks)
        .materialize()
    )


def _number_events(events: pa.Table, shared: "ray.ObjectRef[BucketPlan]") -> pa.Table:
    import ray

    return number_events(events, ray.get(shared))


def _write_buckets(events: pa.Table, shared: "ray.ObjectRef[BucketPlan]") -> pa.Table:
    import ray

    return write_buckets(events, ray.get(shared))


@contextmanager
def _quiet_ray_data() -> Iterator[None]:
    """Ray Data without its own bars and log lines: `report` tells how far the command is."""
    from ray.data import DataContext

    context, logger = DataContext.get_current(), logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        logger.setLevel(level)


def _fingerprint(source: Source, scanned: Scan) -> str:
    """SHA-256 of the input files, of how they are read, and of the code's version."""
    digest = hashlib.sha256(scanned.sha256.encode())
    if source.catalogue:
        digest.update(source.catalogue.path.read_bytes())
    events = source.events
    reading = (events.user, events.item, events.rating, events.time, source.rating_range)
    digest.update(repr((CODE_VERSION, source.shape, reading)).encode())
    return digest.hexdigest()
