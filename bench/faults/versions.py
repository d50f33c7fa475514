"""A store with two versions that nobody can take for one another, and one that is damaged.

Version 1 is the given store's production bundle. Version 2 is the same with every vector moved to
another item and a mark behind every title, so that a user's slates of the two differ in their
items, and a slate to which both contributed is neither's: a user vector of one searched in the
index of the other finds what neither finds.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.bundle_writer import write_manifest
from training.index import write_index
from training.model.bundle import INDEX, Bundle, Items
from training.model.manifest import FileRecord, Manifest, sha256
from training.store import Store

MARK = " [second version]"
SOUND, OTHER, DAMAGED = "1", "2", "3"


def two_versions(source: Bundle, root: Path) -> Store:
    """A new store at `root`: SOUND in production, OTHER and DAMAGED beside it."""
    bundles = root / "bundles"
    manifest = source.manifest
    _copy(source.path, bundles / SOUND, manifest, SOUND)
    shutil.copytree(source.path, bundles / OTHER)
    _make_other(bundles / OTHER)
    _record(bundles / OTHER, manifest, OTHER)
    _copy(source.path, bundles / DAMAGED, manifest, DAMAGED)
    _damage(bundles / DAMAGED / "item_vectors.npy")
    store = Store.open(str(root))
    store.promote(SOUND)
    return store


def _copy(source: Path, target: Path, manifest: Manifest, version: str) -> None:
    shutil.copytree(source, target)
    write_manifest(target, manifest.model_copy(update={"version": version}))


def _make_other(directory: Path) -> None:
    items = pq.read_table(directory / "items.parquet")
    titles = [title + MARK for title in items["title"].to_pylist()]
    column = items.schema.get_field_index("title")
    pq.write_table(
        items.set_column(column, "title", pa.array(titles, pa.string())),
        directory / "items.parquet",
    )
    vectors = np.load(directory / "item_vectors.npy")
    moved = np.roll(vectors, len(vectors) // 2, axis=0)
    np.save(directory / "item_vectors.npy", moved)
    shutil.rmtree(directory / INDEX)
    write_index(directory / INDEX, Items.read(directory / "items.parquet"), moved)


def _record(directory: Path, manifest: Manifest, version: str) -> None:
    """The manifest of the files as they are now."""
    files = sorted(file for file in directory.rglob("*") if file.is_file())
    records = {
        file.relative_to(directory).as_posix(): FileRecord(
            sha256=sha256(file), bytes=file.stat().st_size
        )
        for file in files
        if file.name != "manifest.json"
    }
    write_manifest(directory, manifest.model_copy(update={"version": version, "files": records}))


def _damage(file: Path) -> None:
    """One byte in the middle is another."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
