"""The bundle's vector index: a Qdrant Edge shard over the item vectors.

Point id = item_idx. Payload: item_id, genres, year, avg_rating (the last two are left out where
unknown), indexed so that filters run inside the search.
"""

from pathlib import Path

import numpy as np
from qdrant_edge import (
    Distance,
    EdgeConfig,
    EdgeShard,
    EdgeVectorParams,
    HnswIndexConfig,
    PayloadSchemaType,
    Point,
    UpdateOperation,
)

from training.model.bundle import FULL_SCAN_KB, Items

PAYLOAD_INDEXES = {
    "genres": PayloadSchemaType.Keyword,
    "year": PayloadSchemaType.Integer,
    "avg_rating": PayloadSchemaType.Float,
}
_HNSW = HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=FULL_SCAN_KB)
_UPSERT_POINTS = 2_000


def write_index(path: Path, items: Items, vectors: np.ndarray) -> None:
    """Build the shard in the new directory `path`. vectors: float32 [I, D].

    Without a write-ahead log, so that several processes can load the finished shard. Qdrant
    builds an HNSW graph from 20,000 items on (10 MB of vectors); below, every search is exact.
    The fields are declared before the graph is built, so that it gets links for their values.
    """
    config = EdgeConfig(
        vectors=EdgeVectorParams(size=vectors.shape[1], distance=Distance.Dot),
        hnsw_config=_HNSW,
        wal_enabled=False,
        # A replica has one CPU; by default eight threads would take turns on it.
        max_search_threads=1,
    )
    shard = EdgeShard.create(str(path), config)
    for field, schema in PAYLOAD_INDEXES.items():
        shard.update(UpdateOperation.create_field_index(field, schema))
    for start in range(0, len(vectors), _UPSERT_POINTS):
        rows = range(start, min(start + _UPSERT_POINTS, len(vectors)))
        points = [Point(row, vectors[row].tolist(), items.payload(row)) for row in rows]
        shard.update(UpdateOperation.upsert_points(points))
    shard.optimize()
    shard.flush()
    shard.close()
    # The first load completes edge_config.json and drops empty journals; later ones change
    # nothing, so the checksums taken after this one hold for as long as the bundle is served.
    EdgeShard.load(str(path)).close()
