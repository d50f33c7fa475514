"""The vector index inside the bundle: Qdrant's engine in this process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qdrant_edge import (
    EdgeShard,
    FieldCondition,
    Filter,
    HasIdCondition,
    MatchAny,
    Query,
    QueryBatchRequest,
    QueryRequest,
    RangeFloat,
    ScoredPoint,
)

from app.domain import Candidates, Float32s, SearchFilter
from training.model.bundle import Bundle


class QdrantEdgeIndex:
    """The VectorIndex port on a bundle's own shard, loaded read-only.

    Searches run on the event loop: the engine holds the interpreter's lock, so a thread would
    only add a switch, and a query takes 0.1 to 0.3 ms.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._shard = EdgeShard.load(str(bundle.index_path))

    async def search(
        self, vectors: Float32s, filters: Sequence[SearchFilter], limits: Sequence[int]
    ) -> Candidates:
        """See the port."""
        requests = [
            QueryRequest(limit=limit, query=Query.Nearest(vector.tolist()), filter=_filter(wanted))
            for vector, wanted, limit in zip(vectors, filters, limits, strict=True)
        ]
        return _candidates(self._shard.query_batch(QueryBatchRequest(requests)))


def _filter(wanted: SearchFilter) -> Filter | None:
    must: list[FieldCondition] = []
    if wanted.genres:
        must.append(FieldCondition(key="genres", match=MatchAny(list(wanted.genres))))
    if wanted.min_rating is not None:
        must.append(FieldCondition(key="avg_rating", range=RangeFloat(gte=wanted.min_rating)))
    if wanted.year_from is not None or wanted.year_to is not None:
        years = RangeFloat(gte=wanted.year_from, lte=wanted.year_to)
        must.append(FieldCondition(key="year", range=years))
    must_not = [HasIdCondition(set(wanted.exclude.tolist()))] if len(wanted.exclude) else []
    if not must and not must_not:
        return None
    return Filter(must=[*must], must_not=[*must_not])


def _candidates(found: Sequence[Sequence[ScoredPoint]]) -> Candidates:
    width = max((len(row) for row in found), default=0)
    items = np.full((len(found), width), -1, np.int32)
    scores = np.full((len(found), width), -np.inf, np.float32)
    for b, row in enumerate(found):
        items[b, : len(row)] = [point.id for point in row]
        scores[b, : len(row)] = [point.score for point in row]
    return Candidates(items, scores)
