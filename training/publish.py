"""Turns a finished run into the next version of a store, and moves production between versions."""

import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.baselines import recency_weights
from training.bundle_writer import MODEL_FILES, Contents, popularity_order, write_files
from training.content import without_vectors
from training.data.dataset import Dataset, load
from training.drift import baseline
from training.errors import UserError
from training.inputs import genre_shares, ranker_item_inputs, ranker_user_inputs, successors
from training.model.blend import load_tower
from training.model.bundle import Bundle, BundleError
from training.model.manifest import DataRecord, Manifest, SplitRecord, TrackingRecord
from training.model.ranking import RANKER_FILES, ranker_kind
from training.model.store import Production
from training.neighbours import neighbours
from training.run import MODEL, Run
from training.store import Store
from training.tracking import tracking_uri

_DRIFT_USERS = 1_000
_DRIFT_CANDIDATES = 100

Report = Callable[[str], None]


@dataclass(frozen=True)
class Published:
    """A new version. `promoted`: whether it answers from now on."""

    manifest: Manifest
    promoted: bool


def publish(run: Path, store: Store, *, promote: bool = False, report: Report) -> Published:
    """Build the bundle of a finished run and add it to the store.

    The store's first version is promoted whatever `promote` says. `report` is told each step.
    Raises UserError for a run that cannot be published, OSError when the store is away.
    """
    record = _finished(run)
    first = store.production() is None
    with store.staging() as directory:
        report("Reading the data")
        dataset = load(record.data)
        record.split(dataset)  # still the data of the run
        report("Computing features over all events")
        contents = _contents(run, record, dataset)
        report("Building the vector index")
        manifest = write_files(directory, contents)
        report("Adding the version to the store")
        version = store.add(directory, manifest)
    if promote or first:
        store.promote(version)
    return Published(store.manifest(version), promoted=promote or first)


def promote(store: Store, version: str, *, report: Report) -> Production:
    """Verify a published version and make it the one that answers.

    UserError for a version that is unknown or does not verify.
    """
    report(f"Verifying version {version}")
    _verify(store, version)
    return store.promote(version)


def rollback(store: Store, *, report: Report) -> Production:
    """Return to the version before the current one, which must verify; UserError if none."""
    current = store.pointer()
    if current is not None and current.previous:
        report(f"Verifying version {current.previous[0]}")
        _verify(store, current.previous[0])
    return store.rollback()


def _finished(directory: Path) -> Run:
    """A run's record; UserError unless it is finished and its model is whole."""
    run = Run.read(directory)
    if run.status != "finished":
        raise UserError(
            f"{directory} is not finished (status {run.status!r}): go on with "
            f"`marquee train {run.data} --out {directory} --resume`"
        )
    for name in (*MODEL_FILES, _ranker_file(directory)):
        if not (directory / MODEL / name).is_file():
            raise UserError(f"{directory / MODEL / name} is missing: train the run again")
    return run


def _ranker_file(directory: Path) -> str:
    """The file of the run's ranker; ranker.json itself where that is not there to say."""
    record = directory / MODEL / "ranker.json"
    if not record.is_file():
        return record.name
    return RANKER_FILES[ranker_kind(json.loads(record.read_bytes()))]


def _contents(run: Path, record: Run, dataset: Dataset) -> Contents:
    every = np.ones(dataset.n_events, dtype=bool)
    genres, matrix = genre_shares(dataset.items)
    popularity = _popularity(dataset)
    followers, weights = successors(dataset, every)
    near, nearness = neighbours(dataset.item, dataset.offsets, dataset.n_items)
    return Contents(
        model_dir=run / MODEL,
        entity_name=dataset.entity,
        entity_verb=dataset.verb,
        items=without_vectors(dataset.items),
        item_features=ranker_item_inputs(dataset, every),
        genres=genres,
        genre_matrix=matrix,
        successors=followers,
        successor_weights=weights,
        neighbours=near,
        neighbour_weights=nearness,
        users=dataset.user_ids,
        user_history=dataset.item,
        user_offsets=dataset.offsets,
        user_features=ranker_user_inputs(dataset, every),
        popularity_score=popularity,
        drift=baseline(
            dataset.offsets,
            dataset.item,
            popularity_order(popularity),
            matrix,
            genres,
            _usual_scores(run / MODEL, dataset),
        ),
        data=DataRecord(fingerprint=dataset.fingerprint, statistics=dataset.statistics),
        split=SplitRecord(
            protocol=record.protocol,
            k_core=record.k_core,
            seed=record.seed,
            hash=record.split_hash,
        ),
        metrics=_metrics(run),
        recipe=record.recipe.model_dump(),
        tracking=TrackingRecord(uri=_without_password(tracking_uri()), run_id=record.mlflow_run_id),
    )


def _popularity(dataset: Dataset) -> np.ndarray:
    """Recent-weighted popularity [I]: events count less the older they are."""
    weights = recency_weights(dataset.timestamp) if dataset.has_time else None
    return np.bincount(dataset.item, weights, minlength=dataset.n_items).astype(np.float64)


def _usual_scores(model_dir: Path, dataset: Dataset) -> np.ndarray:
    """The tower's scores of what it would retrieve for users spread over the data set."""
    tower = load_tower(model_dir)
    vectors = np.load(model_dir / "item_vectors.npy")
    if len(vectors) != dataset.n_items:
        raise UserError(
            f"{model_dir} has {len(vectors)} item vectors and the data {dataset.n_items} items: "
            "train the run again"
        )
    users = np.unique(np.linspace(0, dataset.n_users - 1, _DRIFT_USERS).astype(np.int64))
    lengths = dataset.offsets[users + 1] - dataset.offsets[users]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    starts = np.repeat(dataset.offsets[users] - offsets[:-1], lengths)
    history = dataset.item[starts + np.arange(offsets[-1])]
    scores = tower.encode_ragged(history, offsets, users) @ vectors.T
    kept = min(_DRIFT_CANDIDATES, scores.shape[1])
    return np.partition(scores, -kept, axis=1)[:, -kept:]


def _metrics(run: Path) -> dict[str, Any]:
    """What `marquee evaluate` wrote of the run, {} when it was never evaluated."""
    file = run / "evaluation.json"
    if not file.is_file():
        return {}
    metrics: dict[str, Any] = json.loads(file.read_text("utf-8"))
    metrics.pop("slices", None)  # ten times the rest, and nobody who serves asks
    return metrics


def _without_password(uri: str) -> str:
    """The address alone: a manifest is read by whoever can read the store."""
    return re.sub(r"(?<=://)[^/@]*@", "", uri)


def _verify(store: Store, version: str) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix="marquee-verify-") as cache:
            Bundle.open(store.fetch(version, Path(cache)))
    except BundleError as error:
        raise UserError(str(error)) from None
