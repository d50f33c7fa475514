"""`marquee prepare`: validate, number the ids, order by user, split, describe, write Parquet.

One pass over the events with one shuffle between its halves, both on Ray Data: `shards` reads and
checks chunks of the input and deals the events out to buckets by a hash of their user; `buckets`
makes everything about a bucket's users at once. dataset.py reads the result.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.data.append import Previous, join_catalogues, map_genres
from training.data.assembly import (
    check_rejects,
    collect_rejects,
    distinct_ids,
    item_catalogue,
    statistics_of,
    total_sums,
    write_tables,
)
from training.data.buckets import BucketPlan, BucketResult, Shard, make_buckets
from training.data.catalogue import read_catalogue
from training.data.events import CHUNK_BYTES, Chunk, Limits, first_row, guess_events, plan_chunks
from training.data.features import genre_matrix
from training.data.locations import read_bytes
from training.data.output import staged_directory
from training.data.ray_session import ray_session, usable_cpus
from training.data.remote import MARKER
from training.data.shards import ChunkPlan, ChunkResult, deal_chunks
from training.data.sources import Source
from training.data.state import STATE
from training.data.tasks import HeadStart, run_tasks
from training.errors import UserError

EVENTS_PER_BUCKET = 1_000_000
OBJECT_STORE_BYTES = 256 * 2**20  # results of tasks and the plan; events never pass through it
HEAD_START_THREADS = 2  # Ray's start leaves about so much of two cores free
CODE_VERSION = 2  # raise it when the same input would be prepared to something else
STAGED = ("shards", "rejects")
"""Folders of intermediate files, removed before the directory is renamed into place."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Dealt:
    """What the first half of the pass found."""

    results: list[ChunkResult]  # in order of the input
    files: dict[int, str]  # of each chunk
    first_rows: dict[int, int]  # for each chunk, the row of its file that its rows count from

    @property
    def n_events(self) -> int:
        return sum(result.n_events for result in self.results)

    def rejects(self, staging: Path) -> pa.Table:
        """All events that were rejected so far."""
        return collect_rejects(staging, self.first_rows)


def prepare(
    source: Source,
    out: Path,
    *,
    append: bool = False,
    text_features: bool = False,
    max_rejects: float = 0.01,
    cpus: int | None = None,
    report: Report = lambda step: None,
    chunk_bytes: int = CHUNK_BYTES,
    events_per_bucket: int = EVENTS_PER_BUCKET,
) -> dict[str, Any]:
    """Write the prepared directory `out` and return its statistics.

    append: add the source's events to those that `out` holds.
    text_features: give every item a vector of its title, categories and tags.
    max_rejects: the share of this source's events that may be rejected before it is refused.
    cpus: tasks at a time, by default one for each core. report: is told each step as it begins.

    UserError for an input that cannot be understood, or an `out` that is not ours to replace or
    cannot be written; `out` is then as it was.
    """
    previous = Previous.open(out, source) if append else None
    with staged_directory(out, marker=MARKER) as staging:
        for folder in (*STAGED, STATE):
            (staging / folder).mkdir()
        chunks = plan_chunks(source.events, chunk_bytes)
        n_buckets = previous.n_buckets if previous else _n_buckets(source, events_per_bucket)
        limits = Limits(source.rating_range, int(time.time()))
        dealing = ChunkPlan(source, limits, n_buckets, staging)
        rows = [asdict(chunk) for chunk in chunks]
        report("Starting Ray and reading the first events")
        threads = min(cpus or usable_cpus(), HEAD_START_THREADS)
        with (
            ThreadPoolExecutor(1) as beside,
            HeadStart(deal_chunks, rows, dealing, threads=threads) as head_start,
        ):
            described_items = beside.submit(_catalogue, source, previous, text_features)
            with ray_session(OBJECT_STORE_BYTES, cpus, lean=True):
                dealt = _deal(source, chunks, dealing, head_start, report)
                check_rejects(dealt.rejects(staging), dealt.n_events, max_rejects)
                if text_features and not described_items.done():
                    report("Embedding texts of items")
                catalogue, recategorised = described_items.result()
                plan, items = _plan(source, dealt, catalogue, previous, staging, recategorised)
                _make(plan, n_buckets, report)
                rejects = dealt.rejects(staging)  # now with the repeats
                check_rejects(rejects, dealt.n_events, max_rejects)
                if previous:
                    rejects = pa.concat_tables([previous.rejects, rejects])
                report("Writing users, items and statistics")
                # Beside the end of Ray's processes, which takes them a second or two.
                described = beside.submit(_describe, source, plan, items, rejects, staging)
            for folder in STAGED:
                shutil.rmtree(staging / folder)
            statistics = described.result()
        statistics["layout"]["buckets"] = n_buckets
        statistics["erasures"] = source.erasures or (previous and previous.erasures)
        statistics["event_log"] = source.log_position or (previous and previous.log_position)
        statistics["fingerprint"] = _fingerprint(source, dealt, previous)
        (staging / MARKER).write_text(json.dumps(statistics, indent=2) + "\n", "utf-8")
    return statistics


def _catalogue(
    source: Source, previous: Previous | None, text_features: bool
) -> tuple[pa.Table | None, bool]:
    """What is known of the items, and whether that changes the past of one: see append.py."""
    catalogue = read_catalogue(source.catalogue) if source.catalogue else None
    if text_features:
        catalogue = _with_text(catalogue)
    return join_catalogues(previous, catalogue) if previous else (catalogue, False)


def _describe(
    source: Source, plan: BucketPlan, items: pa.Table, rejects: pa.Table, staging: Path
) -> dict[str, Any]:
    """Write all tables beside the events; returns the statistics."""
    names = genre_matrix(items["genres"].to_pylist())[0]
    sums = total_sums(staging, len(plan.user_ids), items.num_rows, len(names))
    users = write_tables(staging, plan.user_ids, items, names, sums)
    pq.write_table(rejects, staging / "rejects.parquet")
    statistics = statistics_of(source, users, items, sums, rejects)
    return statistics | {"layout": {"genres": names}}


def _with_text(catalogue: pa.Table | None) -> pa.Table:
    if catalogue is None:
        raise UserError("--text-features needs texts: name a table of items with --items")
    from training.data.text import TEXT_VECTOR, embed_items

    return catalogue.append_column(TEXT_VECTOR, embed_items(catalogue))


def _n_buckets(source: Source, events_per_bucket: int) -> int:
    return max(-(-guess_events(source.events) // events_per_bucket), 1)


def _deal(
    source: Source, chunks: list[Chunk], plan: ChunkPlan, head_start: HeadStart, report: Report
) -> Dealt:
    """Read, check and deal out all chunks; UserError for the first that makes no sense."""
    rest = head_start.leave_rest()
    results: list[ChunkResult] = []
    report(f"Reading and checking events: {len(chunks)} parts")
    for result in run_tasks(deal_chunks, rest, plan):
        results.append(result)
        done = len(chunks) - len(rest) + len(results)
        report(f"Reading and checking events: {done} of {len(chunks)} parts")
    results += head_start.results()
    results.sort(key=lambda result: result.chunk)
    next_row = [first_row(file) for file in source.events]
    first_rows: dict[int, int] = {}
    files = {chunk.index: source.events[chunk.file].path for chunk in chunks}
    for chunk, result in zip(chunks, results, strict=True):
        first_rows[chunk.index] = next_row[chunk.file]
        next_row[chunk.file] += result.lines
        if result.problem is None:
            continue
        if result.problem_row is None:
            raise UserError(result.problem)
        row = first_rows[chunk.index] + result.problem_row
        raise UserError(f"{files[chunk.index]}: row {row}{result.problem}")
    if not any(result.lines for result in results):
        raise UserError(f"{source.events[0].path} holds no events")
    return Dealt(results, files, first_rows)


def _plan(
    source: Source,
    dealt: Dealt,
    catalogue: pa.Table | None,
    previous: Previous | None,
    staging: Path,
    recategorised: bool,
) -> tuple[BucketPlan, pa.Table]:
    """What the second half must know, and the catalogue with a row for each item_idx."""
    users = [ids for result in dealt.results for ids in result.users]
    items = [ids for result in dealt.results for ids in result.items]
    if catalogue is not None:
        items.append(catalogue["item_id"].combine_chunks())
    user_ids = distinct_ids(users, previous.user_ids if previous else None)
    item_ids = distinct_ids(items, previous.item_ids if previous else None)
    table = item_catalogue(catalogue, item_ids)
    names, genres = genre_matrix(table["genres"].to_pylist())
    shards = [
        Shard(
            path=str(staging / "shards" / name),
            file=dealt.files[result.chunk],
            first_row=dealt.first_rows[result.chunk],
        )
        for result in dealt.results
        for name in result.shards
    ]
    plan = BucketPlan(
        shards=tuple(shards),
        user_ids=user_ids,
        item_ids=item_ids,
        genres=genres,
        has_time=source.has_time,
        staging=staging,
        previous=previous.path if previous else None,
        previous_genres=map_genres(previous, names) if previous else None,
        same_genres=previous is None or previous.genres == names,
        recategorised=recategorised,
    )
    return plan, table


def _make(plan: BucketPlan, n_buckets: int, report: Report) -> None:
    """Write all buckets; UserError when one could not be written."""
    report(f"Ordering events by user: {n_buckets} buckets")
    done: list[BucketResult] = []
    for result in run_tasks(
        make_buckets, [{"bucket": number} for number in range(n_buckets)], plan
    ):
        done.append(result)
        report(f"Ordering events by user: {len(done)} of {n_buckets} buckets")
    for result in sorted(done, key=lambda result: result.bucket):
        if result.problem is not None:
            raise UserError(result.problem)


def _fingerprint(source: Source, dealt: Dealt, previous: Previous | None) -> str:
    """SHA-256 of the input files, of how they are read, and of the code's version."""
    digest = hashlib.sha256(previous.fingerprint.encode() if previous else b"")
    for result in dealt.results:
        digest.update(result.digest.encode())
    if source.catalogue:
        digest.update(read_bytes(source.catalogue.path))
    reading = (source.shape, source.entity, source.events[0].columns, source.rating_range)
    digest.update(repr((CODE_VERSION, *reading)).encode())
    return digest.hexdigest()
