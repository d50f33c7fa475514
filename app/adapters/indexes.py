"""Which vector index serves a bundle: the server when there is one, else the bundle's own."""

from __future__ import annotations

from collections.abc import Sequence

from app.adapters.store import bundle_store
from app.ports import VectorIndex
from app.settings import Settings
from training.model.bundle import Bundle
from training.model.store import BundleStore


def open_index(settings: Settings, bundle: Bundle) -> VectorIndex:
    """The index of the bundle's version."""
    if settings.qdrant_url:
        from app.adapters.qdrant_server import QdrantServerIndex

        store = bundle_store(settings).store
        return QdrantServerIndex.connect(
            bundle,
            left_behind=lambda collections: left_behind(store, collections),
            url=settings.qdrant_url,
            api_key=settings.qdrant_api_key or None,
            timeout_s=settings.qdrant_timeout_ms / 1000,
        )
    from app.adapters.qdrant_edge import QdrantEdgeIndex

    return QdrantEdgeIndex(bundle)


def left_behind(store: BundleStore, collections: Sequence[str]) -> list[str]:
    """Those of the collections that promotions have left behind; other stores' are not among them.

    Raises OSError when the store is away, BundleError when it is damaged.
    """
    from app.adapters.qdrant_server import collection_name

    versions = [
        version
        for version in store.left_behind()
        if any(collection.startswith(f"items-{version}-") for collection in collections)
    ]
    names = (collection_name(store.manifest(version)) for version in versions)
    return [name for name in names if name in collections]
