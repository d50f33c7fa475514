"""The MLflow model registry's view of a store. Serving never reads it.

Each bundle is a version of the registered model `marquee`, tagged with its store and its version
there (the registry counts its own); the alias `production` follows the store's pointer.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from training.model.manifest import Manifest

MODEL = "marquee"
PRODUCTION = "production"


class RegistryError(Exception):
    """MLflow did not do what it was asked; the message is one line."""


def address(manifest: Manifest) -> str:
    """MLFLOW_TRACKING_URI, or where MLflow was when the bundle was published."""
    return os.environ.get("MLFLOW_TRACKING_URI") or manifest.tracking.uri


def register(tracking_uri: str, store_url: str, manifest: Manifest) -> str:
    """Add a bundle to the registry; returns the registry's number of it. RegistryError."""
    with _client(tracking_uri) as client:
        if not client.search_registered_models(f"name = '{MODEL}'"):
            client.create_registered_model(MODEL, description="Bundles that Marquee serves.")
        version = client.create_model_version(
            MODEL,
            source=_bundle_url(store_url, manifest.version),
            run_id=manifest.tracking.run_id,
            tags={
                "store": store_url,
                "bundle_version": manifest.version,
                "data_fingerprint": manifest.data.fingerprint,
                "split_hash": manifest.split.hash,
            },
        )
    return str(version.version)


def mark_production(tracking_uri: str, store_url: str, version: str) -> None:
    """Move the alias `production` to a store's version; RegistryError, also when unknown there."""
    with _client(tracking_uri) as client:
        registered = _find(client, store_url, version)
        client.set_registered_model_alias(MODEL, PRODUCTION, registered.version)


@contextmanager
def _client(tracking_uri: str) -> Iterator[MlflowClient]:
    for noisy in ("mlflow", "alembic"):  # importing mlflow makes them speak
        logging.getLogger(noisy).setLevel(logging.ERROR)
    # MLflow's own default waits for minutes; nobody who rolls back should.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    try:
        yield MlflowClient(tracking_uri)
    except (MlflowException, SQLAlchemyError) as error:
        raise RegistryError(str(error).splitlines()[0]) from error


def _find(client: MlflowClient, store_url: str, version: str) -> ModelVersion:
    source = _bundle_url(store_url, version)
    found = client.search_model_versions(f"name = '{MODEL}'")
    here = [registered for registered in found if registered.source == source]
    if not here:
        raise RegistryError(f"it knows no version {version} of {store_url}")
    # A store that was emptied and filled again has several of the same number.
    return max(here, key=lambda registered: int(registered.version))


def _bundle_url(store_url: str, version: str) -> str:
    """Where the bundle is. An MLflow server refuses paths of its clients' machines as sources, so
    a directory's address is given as one of a scheme of our own."""
    scheme = "" if "://" in store_url else "marquee-store://"
    return f"{scheme}{store_url}/bundles/{version}"
