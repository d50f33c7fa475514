"""Preparation without Ray: the same tasks, one after another in this process."""

import hashlib
import pickle
from contextlib import nullcontext

import pyarrow as pa

from training.data import prepare as preparation
from training.data.events import CHUNK_BYTES, EventError, first_row, plan_chunks, read_chunk
from training.errors import UserError


def read_events(source, chunk_bytes=CHUNK_BYTES):
    """All events in one table; `row` counts in the file, as the rejects have it."""
    next_row = [first_row(file) for file in source.events]
    tables = []
    for chunk in plan_chunks(source.events, chunk_bytes):
        file, begin = source.events[chunk.file], next_row[chunk.file]
        try:
            for piece in read_chunk(file, chunk, hashlib.sha256()):
                rows = pa.array(piece.events["row"].to_numpy().astype("int64") + begin)
                tables.append(piece.events.set_column(0, "row", rows))
                next_row[chunk.file] += piece.lines
        except EventError as error:
            raise UserError(f"{file.path}: row {begin + error.row}{error.text}") from None
    return pa.concat_tables(tables)


def prepare_inline(monkeypatch):
    """`prepare`, whose tasks run in this process until the monkeypatch is undone."""

    def run(task, rows, plan):
        for row in rows:
            results = task(pa.Table.from_pylist([row]), plan)["result"].to_pylist()
            yield from map(pickle.loads, results)

    monkeypatch.setattr(preparation, "run_tasks", run)
    monkeypatch.setattr(preparation, "ray_session", lambda *_, **__: nullcontext(1))
    return preparation.prepare
