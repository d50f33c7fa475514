"""Which vector index serves a bundle: the server when there is one, else the bundle's own."""

from __future__ import annotations

from app.ports import VectorIndex
from app.settings import Settings
from training.model.bundle import Bundle


def open_index(settings: Settings, bundle: Bundle) -> VectorIndex:
    """The index of the bundle's version."""
    if settings.qdrant_url:
        from app.adapters.qdrant_server import QdrantServerIndex

        return QdrantServerIndex.connect(
            bundle,
            url=settings.qdrant_url,
            api_key=settings.qdrant_api_key or None,
            timeout_s=settings.qdrant_timeout_ms / 1000,
        )
    from app.adapters.qdrant_edge import QdrantEdgeIndex

    return QdrantEdgeIndex(bundle)
