"""The MLflow model registry's view of a store. Serving never reads it.

Each bundle is a version of the registered model `marquee`, tagged with its store and its version
there (the registry counts its own); the alias `production` follows the store's pointer.
"""

import os

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from training.model.manifest import Manifest

MODEL = "marquee"
PRODUCTION = "production"


def address(manifest: Manifest) -> str:
    """MLFLOW_TRACKING_URI, or where the bundle's training was recorded."""
    return os.environ.get("MLFLOW_TRACKING_URI") or manifest.tracking.uri


def register(tracking_uri: str, store_url: str, manifest: Manifest) -> str:
    """Add a bundle to the registry; returns the registry's number of it.

    MlflowException when it fails.
    """
    client = MlflowClient(tracking_uri)
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


def mark_production(tracking_uri: str, store_url: str, version: str) -> str | None:
    """Move the alias `production` to a store's version; returns the registry's number of it.

    None when the registry does not know that version. MlflowException when it fails.
    """
    client = MlflowClient(tracking_uri)
    registered = _find(client, store_url, version)
    if registered is None:
        return None
    client.set_registered_model_alias(MODEL, PRODUCTION, registered.version)
    return str(registered.version)


def _find(client: MlflowClient, store_url: str, version: str) -> ModelVersion | None:
    source = _bundle_url(store_url, version)
    found = client.search_model_versions(f"name = '{MODEL}'")
    here = [version for version in found if version.source == source]
    # A store that was emptied and filled again has several of the same number.
    return max(here, key=lambda version: int(version.version), default=None)


def _bundle_url(store_url: str, version: str) -> str:
    return f"{store_url.rstrip('/')}/bundles/{version}"


__all__ = ["MlflowException", "address", "mark_production", "register"]
