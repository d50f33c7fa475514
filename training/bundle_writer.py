"""Writes the files of a bundle; training/model/bundle.py says what is in them and reads them."""

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.index import write_index
from training.model.bundle import INDEX, Items
from training.model.manifest import (
    FORMAT,
    MANIFEST,
    DataRecord,
    Entity,
    FileRecord,
    Manifest,
    SplitRecord,
    TrackingRecord,
    sha256,
)

MODEL_FILES = ("tower.json", "tower.safetensors", "item_vectors.npy", "ranker.json")


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle. Arrays are as `training.model.bundle.Bundle` describes them.

    model_dir: copied as a whole; holds MODEL_FILES at least.
    users: original ids [U], ascending: int64 or str objects.
    """

    model_dir: Path
    entity_name: str
    entity_verb: str
    items: pa.Table
    item_features: np.ndarray
    genres: list[str]
    genre_matrix: np.ndarray
    successors: np.ndarray
    successor_weights: np.ndarray
    neighbours: np.ndarray
    neighbour_weights: np.ndarray
    users: np.ndarray
    user_history: np.ndarray
    user_offsets: np.ndarray
    user_features: np.ndarray
    popularity_score: np.ndarray
    drift: dict[str, Any]
    data: DataRecord
    split: SplitRecord
    metrics: dict[str, Any]
    recipe: dict[str, Any]
    tracking: TrackingRecord


def popularity_order(score: np.ndarray) -> np.ndarray:
    """item_idx int32 [I] by falling score, ties by rising item_idx."""
    return np.argsort(-score, kind="stable").astype(np.int32)


def write_files(directory: Path, contents: Contents) -> Manifest:
    """Write everything but the manifest into the empty `directory`; returns the manifest.

    Its version is "1" until a store gives it another.
    """
    shutil.copytree(contents.model_dir, directory, dirs_exist_ok=True)
    for name, array in _arrays(contents).items():
        np.save(directory / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)
    pq.write_table(contents.items, directory / "items.parquet")
    (directory / "drift.json").write_text(json.dumps(contents.drift, indent=1) + "\n", "utf-8")
    vectors = np.load(directory / "item_vectors.npy")
    write_index(directory / INDEX, Items.read(directory / "items.parquet"), vectors)
    return _manifest(contents, vectors.shape[1], _file_records(directory))


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write manifest.json, the last file of a bundle."""
    text = json.dumps(manifest.model_dump(), indent=1, ensure_ascii=False)
    (directory / MANIFEST).write_text(text + "\n", "utf-8")


def _arrays(contents: Contents) -> dict[str, np.ndarray]:
    return {
        "item_features": contents.item_features.astype(np.float32),
        "genre_matrix": contents.genre_matrix.astype(np.float32),
        "successors": contents.successors.astype(np.int32),
        "successor_weights": contents.successor_weights.astype(np.float32),
        "neighbours": contents.neighbours.astype(np.int32),
        "neighbour_weights": contents.neighbour_weights.astype(np.float32),
        "user_ids": _id_array(contents.users),
        "user_history": contents.user_history.astype(np.int32),
        "user_offsets": contents.user_offsets.astype(np.int64),
        "user_features": contents.user_features.astype(np.float32),
        "popularity": popularity_order(contents.popularity_score),
        "popularity_score": contents.popularity_score.astype(np.float32),
    }


def _id_array(ids: np.ndarray) -> np.ndarray:
    """Ids as int64, or as UTF-8 bytes, which sort as the strings do."""
    if ids.dtype.kind in "iu":
        return ids.astype(np.int64)
    return np.array([text.encode() for text in ids], dtype=np.bytes_)


def _manifest(contents: Contents, dimension: int, files: dict[str, FileRecord]) -> Manifest:
    is_movie = contents.entity_name == "movie"
    integer_ids = pa.types.is_integer(contents.items.schema.field("item_id").type)
    return Manifest(
        format=FORMAT,
        version="1",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        entity=Entity(
            name=contents.entity_name,
            verb=contents.entity_verb,
            id_field="movie_id" if is_movie else "item_id",
            id_type="int" if integer_ids else "str",
        ),
        dimension=dimension,
        n_users=len(contents.users),
        n_items=contents.items.num_rows,
        genres=contents.genres,
        data=contents.data,
        split=contents.split,
        metrics=contents.metrics,
        recipe=contents.recipe,
        tracking=contents.tracking,
        files=files,
    )


def _file_records(directory: Path) -> dict[str, FileRecord]:
    files = sorted(file for file in directory.rglob("*") if file.is_file())
    return {
        file.relative_to(directory).as_posix(): FileRecord(
            sha256=sha256(file), bytes=file.stat().st_size
        )
        for file in files
    }
