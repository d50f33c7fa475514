"""The vector index inside the bundle: Qdrant's engine in this process, no network."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    SearchParams,
)

from app.adapters.exact_scan import SCAN_BYTES, ExactScan
from app.adapters.qdrant_rules import (
    EXACT_FROM_LIMIT,
    as_candidates,
    has_conditions,
    is_approximate,
    least_rating,
    merge_rows,
    short_rows,
)
from app.domain import Candidates, Float32s, SearchFilter
from app.errors import DependencyUnavailable
from training.model.bundle import Bundle


class QdrantEdgeIndex:
    """The VectorIndex port over `bundle.index_path`."""

    def __init__(self, bundle: Bundle) -> None:
        """Load the shard. Raises DependencyUnavailable when the engine refuses it."""
        path = bundle.index_path
        if not os.access(path, os.W_OK):
            # The engine maps its files for writing even to read them: a store that is mounted
            # read-only gets a copy that lives as long as this object.
            self._copy = tempfile.TemporaryDirectory(prefix="marquee-index-")
            path = _writable_copy(path, Path(self._copy.name))
        try:
            self._shard = EdgeShard.load(str(path))
        except Exception as error:  # the engine has no exception classes of its own
            raise DependencyUnavailable(f"{path}: Qdrant Edge cannot load it: {error}") from error
        self._approximate = is_approximate(bundle)
        small = bundle.item_vectors.nbytes <= SCAN_BYTES
        self._scan = ExactScan(bundle.item_vectors) if small else None

    async def prepare(self) -> None:
        """Nothing is left to do after loading."""

    async def search(
        self, vectors: Float32s, filters: Sequence[SearchFilter], limits: Sequence[int]
    ) -> Candidates:
        """See the port.

        Runs inline: the engine holds the GIL while it searches (0.1-0.5 ms a query), so a thread
        would free nothing and add two switches.
        """
        if self._scan is None:
            return self._ask_engine(vectors, filters, limits)
        asked = [b for b, wanted in enumerate(filters) if has_conditions(wanted)]
        scanned = [b for b, wanted in enumerate(filters) if not has_conditions(wanted)]
        found = self._scan.search(
            vectors[scanned], [filters[b].exclude for b in scanned], [limits[b] for b in scanned]
        )
        if not asked:
            return found
        matching = self._ask_engine(
            vectors[asked], [filters[b] for b in asked], [limits[b] for b in asked]
        )
        return merge_rows(len(filters), {tuple(scanned): found, tuple(asked): matching})

    def _ask_engine(
        self, vectors: Float32s, filters: Sequence[SearchFilter], limits: Sequence[int]
    ) -> Candidates:
        requests = list(zip(vectors.tolist(), map(_filter, filters), limits, strict=True))
        try:
            hits = self._query(
                [_request(*row, exact=row[2] >= EXACT_FROM_LIMIT) for row in requests]
            )
            if self._approximate:
                short = short_rows(hits, limits)
                again = self._query([_request(*requests[b], exact=True) for b in short])
                for b, row in zip(short, again, strict=True):
                    hits[b] = row
        except Exception as error:  # see above
            raise DependencyUnavailable(f"Qdrant Edge cannot search: {error}") from error
        return as_candidates(hits)

    def _query(self, requests: list[QueryRequest]) -> list[list[Any]]:
        return self._shard.query_batch(QueryBatchRequest(requests)) if requests else []


def _writable_copy(source: Path, directory: Path) -> Path:
    copy = Path(shutil.copytree(source, directory / "index"))
    for path in (copy, *copy.rglob("*")):
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
    return copy


def _request(
    vector: list[float], condition: Filter | None, limit: int, *, exact: bool
) -> QueryRequest:
    return QueryRequest(
        limit=limit,
        query=Query.Nearest(vector),
        filter=condition,
        with_payload=False,
        params=SearchParams(exact=exact),
    )


def _filter(wanted: SearchFilter) -> Filter | None:
    must: list[Any] = []
    if wanted.genres:
        must.append(FieldCondition(key="genres", match=MatchAny(list(wanted.genres))))
    if wanted.min_rating is not None:
        at_least = RangeFloat(gte=least_rating(wanted.min_rating))
        must.append(FieldCondition(key="avg_rating", range=at_least))
    if wanted.year_from is not None or wanted.year_to is not None:
        years = RangeFloat(gte=wanted.year_from, lte=wanted.year_to)
        must.append(FieldCondition(key="year", range=years))
    must_not: list[Any] = []
    if len(wanted.exclude):
        must_not.append(HasIdCondition(set(wanted.exclude.tolist())))
    return Filter(must=must, must_not=must_not) if must or must_not else None
