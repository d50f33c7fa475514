"""A complete, valid bundle of random weights in about a second, without Ray or training."""

import json
import tempfile
from pathlib import Path

import lightgbm
import numpy as np
import pyarrow as pa
import torch

from training.bundle_writer import Contents, popularity_order, write_files, write_manifest
from training.drift import baseline
from training.model.manifest import DataRecord, SplitRecord, TrackingRecord
from training.model.ranking import ITEM_INPUTS, RANKER_FEATURES, SUCCESSORS, USER_INPUTS
from training.model.two_tower import DIMENSION, TowerConfig, UserTower
from training.neighbours import neighbours

GENRES = ["Action", "Comedy", "Drama", "Horror", "Sci-Fi"]


def tiny_bundle(
    path: Path,
    n_items: int = 60,
    n_users: int = 40,
    seed: int = 0,
    id_type: str = "int",
    version: str = "1",
) -> Path:
    """Write a bundle into the new directory `path` and return it.

    Item ids are 10, 20, ... and user ids 1, 2, ... (id_type "int"), or "i000010" and "u000001" with
    entity "item" (id_type "str"). Every user has at least 3 events. Every tenth item has no year,
    every seventh no rating and every twelfth no genre.
    """
    path.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as model_dir:
        contents = tiny_contents(Path(model_dir), n_items, n_users, seed, id_type)
        manifest = write_files(path, contents)
    write_manifest(path, manifest.model_copy(update={"version": version}))
    return path


def tiny_contents(
    model_dir: Path, n_items: int = 60, n_users: int = 40, seed: int = 0, id_type: str = "int"
) -> Contents:
    """The same bundle before it is written; its model files are in `model_dir`."""
    rng = np.random.default_rng(seed)
    vectors = write_tiny_model(model_dir, n_items, seed)
    counts = rng.integers(3, 12, n_users)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    history = rng.integers(0, n_items, offsets[-1])
    popularity = np.bincount(history, minlength=n_items).astype(float)
    items = _items(rng, n_items, id_type)
    matrix = _genre_rows(items["genres"].to_pylist())
    users: np.ndarray = np.arange(1, n_users + 1)
    if id_type == "str":
        users = np.array([f"u{user:06d}" for user in users], dtype=object)
    scores = vectors[:20] @ vectors.T
    near, nearness = neighbours(history, offsets, n_items)
    return Contents(
        model_dir=model_dir,
        entity_name="movie" if id_type == "int" else "item",
        entity_verb="watched" if id_type == "int" else "liked",
        items=items,
        item_features=rng.normal(size=(n_items, len(ITEM_INPUTS))),
        genres=GENRES,
        genre_matrix=matrix,
        successors=np.full((n_items, SUCCESSORS), n_items),
        successor_weights=np.zeros((n_items, SUCCESSORS)),
        neighbours=near,
        neighbour_weights=nearness,
        users=users,
        user_history=history,
        user_offsets=offsets,
        user_features=rng.normal(size=(n_users, len(USER_INPUTS))),
        popularity_score=popularity,
        drift=baseline(offsets, history, popularity_order(popularity), matrix, GENRES, scores),
        data=DataRecord(fingerprint=f"tiny-{seed}", statistics={"counts": {"items": n_items}}),
        split=SplitRecord(protocol="leave-one-out", k_core=0, seed=seed, hash="tiny"),
        metrics={},
        recipe={"epochs": 0},
        tracking=TrackingRecord(uri="sqlite:///tiny.db", run_id=None),
    )


def write_tiny_model(directory: Path, n_items: int, seed: int = 0) -> np.ndarray:
    """An untrained tower and a small ranker; returns its item vectors, float32 [I, D]."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    vectors = rng.normal(size=(n_items, DIMENSION)).astype(np.float32)
    tower = UserTower(TowerConfig(history_length=20, half_lives=(1.0, 4.0), hidden=16))
    tower.item_vectors = torch.from_numpy(vectors)
    tower.save(directory)
    samples = rng.normal(size=(400, len(RANKER_FEATURES)))
    relevant = samples[:, 0] + rng.normal(size=400) > 0.5
    data = lightgbm.Dataset(samples, relevant, feature_name=list(RANKER_FEATURES))
    settings = {"objective": "binary", "num_leaves": 7, "num_threads": 1, "verbose": -1}
    ranker = lightgbm.train(settings, data, num_boost_round=5)
    ranker.save_model(directory / "ranker.txt")
    (directory / "ranker.json").write_text(json.dumps({"features": list(RANKER_FEATURES)}))
    return vectors


def _items(rng: np.random.Generator, n_items: int, id_type: str) -> pa.Table:
    numbers = range(1, n_items + 1)
    genres = [
        [] if n % 12 == 0 else sorted(rng.choice(GENRES, rng.integers(1, 4), replace=False))
        for n in numbers
    ]
    years = [None if n % 10 == 0 else int(rng.integers(1950, 2020)) for n in numbers]
    ratings = [None if n % 7 == 0 else float(rng.uniform(1, 5)) for n in numbers]
    ids = [10 * n if id_type == "int" else f"i{10 * n:06d}" for n in numbers]
    return pa.table(
        {
            "item_id": ids,
            "title": [f"Film {n}" for n in numbers],
            "name": [f"Film {n}" for n in numbers],
            "genres": pa.array(genres, pa.list_(pa.string())),
            "year": pa.array(years, pa.int32()),
            "rating_mean": pa.array(ratings, pa.float32()),
        }
    )


def _genre_rows(genres: list[list[str]]) -> np.ndarray:
    matrix = np.array([[name in row for name in GENRES] for row in genres], dtype=np.float32)
    return matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
