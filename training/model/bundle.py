"""The bundle: the one thing that crosses from training to serving.

A bundle is an immutable directory. `manifest.json` names every other file with its size and
SHA-256, and is written last, so a directory without a manifest is an unfinished one.

Row i of every per-item array and of `items.parquet` is item_idx i; row i of every per-user
array is user_idx i. Both indices follow ascending original ids. Arrays are memory-mapped:
opening costs the checksums (`verify=True`) and otherwise next to nothing, and processes on
one machine share the pages.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from training.model.manifest import MANIFEST, BundleError, Manifest, read_manifest, sha256
from training.model.ranking import (
    ITEM_INPUTS,
    RANKER_FEATURES,
    RANKER_FILES,
    SUCCESSORS,
    USER_INPUTS,
    ranker_kind,
)

__all__ = ["FULL_SCAN_KB", "INDEX", "NEIGHBOURS", "Bundle", "BundleError", "Items", "Manifest"]

INDEX = "index"

NEIGHBOURS = 100
"""Neighbours kept of an item: as many as a request may ask for."""

# NumPy reads a file's header with Python's parser, which in 3.11 now and then fails with a
# SystemError when several threads parse at once (python/cpython#106905).
_one_parser = threading.Lock()

# In a bundle's index, a search over less than this is an exact scan instead of a walk through the
# HNSW graph. At 62,000 items a year range that left 24,000 found 91% of the true top 100 through
# the graph (0.4 ms) and all of it by the scan (1.5 ms); wider filters lose 1-3%.
FULL_SCAN_KB = 16_000

# Everything a reader of format 1 opens by name, besides the index directory and the ranker.
REQUIRED_FILES = (
    "tower.json",
    "tower.safetensors",
    "item_vectors.npy",
    "items.parquet",
    "item_features.npy",
    "genre_matrix.npy",
    "successors.npy",
    "successor_weights.npy",
    "user_ids.npy",
    "user_history.npy",
    "user_offsets.npy",
    "user_features.npy",
    "popularity.npy",
    "popularity_score.npy",
    "ranker.json",
    "drift.json",
)

# Arrays that bundles of earlier releases do not have: no item of theirs has neighbours.
_LATER = {"neighbours": np.int32, "neighbour_weights": np.float32}

ItemId = int | str
UserId = int | str


@dataclass(frozen=True)
class Items:
    """The catalogue as columns; position = item_idx.

    `names` are the titles as one would say them: "The Matrix" for "Matrix, The (1999)".
    `avg_rating` is float32 with NaN for an item nobody rated; `years` has None where unknown.
    `index` finds an item by its id as it is written: a number need not be read to be found.
    """

    ids: list[ItemId]
    titles: list[str]
    names: list[str]
    genres: list[list[str]]
    years: list[int | None]
    avg_rating: npt.NDArray[np.float32]
    index: dict[str, int]

    @classmethod
    def read(cls, file: Path) -> Items:
        """The columns of an items.parquet that has the bundle's rows."""
        columns = ["item_id", "title", "name", "genres", "year", "rating_mean"]
        table = pq.read_table(file, columns=columns)
        ids = table["item_id"].to_pylist()
        return cls(
            ids=ids,
            titles=table["title"].to_pylist(),
            names=table["name"].to_pylist(),
            genres=table["genres"].to_pylist(),
            years=table["year"].to_pylist(),
            avg_rating=table["rating_mean"].to_numpy().astype(np.float32),
            index={str(item_id): i for i, item_id in enumerate(ids)},
        )

    def __len__(self) -> int:
        return len(self.ids)

    def payload(self, item_idx: int) -> dict[str, Any]:
        """What an index's filters see of an item; what is unknown is left out."""
        payload: dict[str, Any] = {"item_id": self.ids[item_idx], "genres": self.genres[item_idx]}
        if (year := self.years[item_idx]) is not None:
            payload["year"] = year
        if not np.isnan(rating := self.avg_rating[item_idx]):
            payload["avg_rating"] = float(rating)
        return payload


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle. Every array is read-only and memory-mapped, and so is what slices it.

    item_vectors      float32 [I, D]   score of an item = its row · the user vector
    item_features     float32 [I, Fi]  columns training.model.ranking.ITEM_INPUTS
    genre_matrix      float32 [I, G]   multi-hot over manifest.genres, rows sum to 1 or 0
    successors        int32 [I, N]     item_idx that follow each item most; I: there are fewer
    successor_weights float32 [I, N]   how strongly, falling; 0 where there are fewer
    neighbours        int32 [I, N]     item_idx that share most users with each item; I: fewer.
                                       N is 0 in a bundle of an earlier release
    neighbour_weights float32 [I, N]   how strongly, falling; 0 where there are fewer
    user_ids          int64 or bytes [U], strictly ascending
    user_history      int32 [E]        item_idx of all events, by user, oldest first
    user_offsets      int64 [U+1]      events of user row u are user_offsets[u]:user_offsets[u+1]
    user_features     float32 [U, Fu]  columns training.model.ranking.USER_INPUTS
    popularity        int32 [I]        item_idx, most popular first
    popularity_score  float32 [I]      by item_idx
    """

    path: Path
    manifest: Manifest
    item_vectors: npt.NDArray[np.float32]
    item_features: npt.NDArray[np.float32]
    genre_matrix: npt.NDArray[np.float32]
    successors: npt.NDArray[np.int32]
    successor_weights: npt.NDArray[np.float32]
    neighbours: npt.NDArray[np.int32]
    neighbour_weights: npt.NDArray[np.float32]
    user_ids: npt.NDArray[Any]
    user_history: npt.NDArray[np.int32]
    user_offsets: npt.NDArray[np.int64]
    user_features: npt.NDArray[np.float32]
    popularity: npt.NDArray[np.int32]
    popularity_score: npt.NDArray[np.float32]

    @classmethod
    def open(cls, path: str | Path, verify: bool = True) -> Bundle:
        """Open the bundle at `path`; BundleError when it is not whole or of another format.

        Presence, sizes, shapes and the ranker's features are always checked; `verify` adds
        the checksum of every file (about a second per gigabyte).
        """
        path = Path(path)
        manifest = read_manifest(path)
        _check_files(path, manifest, checksums=verify)
        _check_ranker(path, manifest)
        arrays = {
            name: _load(path / f"{name}.npy", dtype, shape)
            for name, (dtype, shape) in _layout(manifest).items()
            if f"{name}.npy" in manifest.files or name not in _LATER
        }
        nobody = {name: np.empty((manifest.n_items, 0), dtype) for name, dtype in _LATER.items()}
        bundle = cls(path=path, manifest=manifest, **(nobody | arrays))
        _check_histories(bundle)
        return bundle

    @property
    def version(self) -> str:
        return self.manifest.version

    @property
    def tower_dir(self) -> Path:
        """Directory for `load_tower`."""
        return self.path

    @property
    def ranker_dir(self) -> Path:
        """Directory for `load_ranker`."""
        return self.path

    @property
    def index_path(self) -> Path:
        """Qdrant Edge shard: point id = item_idx."""
        return self.path / INDEX

    @cached_property
    def items(self) -> Items:
        """The catalogue, read at first use."""
        return Items.read(self.path / "items.parquet")

    def item_index(self, item_id: ItemId) -> int:
        """item_idx of an original id, -1 when unknown; "12" finds 12 where ids are integers."""
        return self.items.index.get(str(item_id), -1)

    def user_row(self, user_id: UserId) -> int:
        """Row of an original user id, -1 when unknown; "12" finds 12 where ids are integers."""
        is_text = self.user_ids.dtype.kind == "S"
        needle = str(user_id).encode() if is_text else _as_number(user_id)
        if needle is None:
            return -1
        row = int(np.searchsorted(self.user_ids, np.array(needle)))
        return row if row < len(self.user_ids) and self.user_ids[row] == needle else -1

    def history(self, user_id: UserId) -> npt.NDArray[np.int32]:
        """item_idx of everything the user did, oldest first; empty for an unknown user."""
        row = self.user_row(user_id)
        if row < 0:
            return self.user_history[:0]
        return self.user_history[self.user_offsets[row] : self.user_offsets[row + 1]]


def _as_number(value: UserId) -> int | None:
    """`value` as an integer id; None when no such id is written like it."""
    try:
        number = int(value)
    except ValueError:
        return None
    # "007", " 7" and "7_0" are not how any integer id is written.
    return number if str(number) == str(value) and -(2**63) <= number < 2**63 else None


def _layout(manifest: Manifest) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    """Array name -> (dtype kind and size, shape); None is a free length."""
    users, items = manifest.n_users, manifest.n_items
    return {
        "item_vectors": ("f4", (items, manifest.dimension)),
        "item_features": ("f4", (items, len(ITEM_INPUTS))),
        "genre_matrix": ("f4", (items, len(manifest.genres))),
        "successors": ("i4", (items, SUCCESSORS)),
        "successor_weights": ("f4", (items, SUCCESSORS)),
        "neighbours": ("i4", (items, NEIGHBOURS)),
        "neighbour_weights": ("f4", (items, NEIGHBOURS)),
        "user_ids": ("", (users,)),
        "user_history": ("i4", (None,)),
        "user_offsets": ("i8", (users + 1,)),
        "user_features": ("f4", (users, len(USER_INPUTS))),
        "popularity": ("i4", (items,)),
        "popularity_score": ("f4", (items,)),
    }


def _check_files(path: Path, manifest: Manifest, *, checksums: bool) -> None:
    listed = manifest.files
    absent = [name for name in REQUIRED_FILES if name not in listed]
    if not any(name.startswith(f"{INDEX}/") for name in listed):
        absent.append(f"{INDEX}/")
    if absent:
        raise BundleError(f"{path / MANIFEST}: does not list {absent[0]}; publish the run again")
    for name, record in listed.items():
        file = path / name
        if not file.is_file():
            raise BundleError(f"{file}: missing; copy the bundle again or publish the run again")
        size = file.stat().st_size
        if size != record.bytes:
            raise BundleError(
                f"{file}: {size} bytes where the manifest says {record.bytes}; "
                "copy the bundle again or publish the run again"
            )
        if checksums and sha256(file) != record.sha256:
            raise BundleError(
                f"{file}: content does not match its checksum; "
                "copy the bundle again or publish the run again"
            )


def _check_ranker(path: Path, manifest: Manifest) -> None:
    file = path / "ranker.json"
    try:
        record = json.loads(file.read_bytes())
        features = tuple(record["features"])
    except (ValueError, KeyError, TypeError):
        raise BundleError(f"{file}: no list of features in it; publish the run again") from None
    if features != RANKER_FEATURES:
        raise BundleError(
            f"{file}: the ranker was trained on other features than this release computes; "
            "train and publish again with this release"
        )
    try:
        model = RANKER_FILES[ranker_kind(record)]
    except ValueError as error:
        raise BundleError(f"{file}: {error}; serve the bundle with a newer release") from None
    if model not in manifest.files:
        raise BundleError(f"{path / MANIFEST}: does not list {model}; publish the run again")


def _load(file: Path, dtype: str, shape: tuple[int | None, ...]) -> npt.NDArray[Any]:
    try:
        # A plain ndarray view of the map: np.memmap's own slicing costs microseconds a time.
        with _one_parser:
            mapped = np.load(file, mmap_mode="r", allow_pickle=False)
        array: npt.NDArray[Any] = mapped.view(np.ndarray)
    except (ValueError, EOFError):
        raise BundleError(f"{file}: not a NumPy array file; publish the run again") from None
    matches = len(array.shape) == len(shape) and all(
        want is None or have == want for have, want in zip(array.shape, shape, strict=True)
    )
    right_type = array.dtype.str[1:] == dtype if dtype else array.dtype.kind in "iS"
    if not matches or not right_type:
        raise BundleError(
            f"{file}: {array.dtype}{list(array.shape)} does not fit the manifest, "
            f"which asks for {dtype or 'ids'}{['any' if n is None else n for n in shape]}; "
            "publish the run again"
        )
    return array


def _check_histories(bundle: Bundle) -> None:
    offsets = bundle.user_offsets
    if offsets[0] != 0 or offsets[-1] != len(bundle.user_history) or np.any(np.diff(offsets) < 0):
        raise BundleError(
            f"{bundle.path / 'user_offsets.npy'}: does not divide user_history.npy into users; "
            "publish the run again"
        )
    if np.any(bundle.user_ids[1:] <= bundle.user_ids[:-1]):
        raise BundleError(
            f"{bundle.path / 'user_ids.npy'}: ids are not strictly ascending; publish the run again"
        )
