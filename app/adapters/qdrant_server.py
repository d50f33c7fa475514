"""The vector index of a Qdrant server, one collection per bundle."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import urlsplit

import grpc
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from app import logs
from app.adapters.qdrant_rules import (
    EXACT_FROM_LIMIT,
    as_candidates,
    is_approximate,
    least_rating,
    short_rows,
)
from app.domain import Candidates, Float32s, SearchFilter
from app.errors import DependencyUnavailable
from training.model.bundle import FULL_SCAN_KB, Bundle
from training.model.manifest import BundleError, Manifest

_log = logs.get("qdrant")

_REST_PORT = 6333
_UPSERT_POINTS = 500
_FILL_TIMEOUT_S = 60
_PAYLOAD_INDEXES = {
    "genres": models.PayloadSchemaType.KEYWORD,
    "year": models.PayloadSchemaType.INTEGER,
    "avg_rating": models.PayloadSchemaType.FLOAT,
}


# Of the collections' names, those that are no longer needed. Raises OSError or BundleError.
LeftBehind = Callable[[Sequence[str]], Sequence[str]]


def collection_name(manifest: Manifest) -> str:
    """Where a bundle's items are."""
    return f"items-{manifest.version}-{manifest.files['item_vectors.npy'].sha256[:8]}"


class QdrantServerIndex:
    """The VectorIndex port over a collection that is filled from the bundle when it is not there.

    The collection's name holds the version and a part of the item vectors' checksum, so that a
    server shared by two stores never answers one with the other's items.
    """

    def __init__(
        self,
        bundle: Bundle,
        client: AsyncQdrantClient,
        *,
        timeout_s: float,
        left_behind: LeftBehind | None = None,
    ) -> None:
        """timeout_s: longest wait for a search; filling a collection has its own.
        left_behind: tells which of the server's collections nobody needs any more; None: no one.
        """
        self.collection = collection_name(bundle.manifest)
        self._left_behind = left_behind
        self._bundle = bundle
        self._client = client
        self._timeout_s = timeout_s
        self._approximate = is_approximate(bundle)
        self._filling: asyncio.Task[None] | None = None

    @classmethod
    def connect(
        cls,
        bundle: Bundle,
        *,
        url: str,
        api_key: str | None,
        timeout_s: float,
        left_behind: LeftBehind | None = None,
    ) -> Self:
        """The index on the server at `url`: its REST port, whose neighbour above speaks gRPC."""
        client = AsyncQdrantClient(
            url=url,
            api_key=api_key,
            prefer_grpc=True,
            grpc_port=(urlsplit(url).port or _REST_PORT) + 1,
            timeout=_FILL_TIMEOUT_S,
            check_compatibility=False,
        )
        return cls(bundle, client, timeout_s=timeout_s, left_behind=left_behind)

    async def prepare(self) -> None:
        """Wait until the collection is filled; a server that is away is the searches' to report.

        Then remove the collections left behind.
        """
        try:
            await self._filled()
        except DependencyUnavailable as error:
            _log.warning("collection not filled", collection=self.collection, reason=str(error))
            return
        try:
            await self._remove_left_behind()
        except (DependencyUnavailable, BundleError, OSError) as error:
            _log.warning("old collections not removed", reason=str(error))

    async def search(
        self, vectors: Float32s, filters: Sequence[SearchFilter], limits: Sequence[int]
    ) -> Candidates:
        """See the port."""
        rows = list(zip(vectors.tolist(), map(_filter, filters), limits, strict=True))
        async with _translated("did not answer"), asyncio.timeout(self._timeout_s):
            await self._filled()
            try:
                hits = await self._query(
                    [_request(*row, exact=row[2] >= EXACT_FROM_LIMIT) for row in rows]
                )
                if self._approximate:
                    short = short_rows(hits, limits)
                    again = await self._query([_request(*rows[b], exact=True) for b in short])
                    for b, row in zip(short, again, strict=True):
                        hits[b] = row
            except BaseException:
                self._filling = None  # look again: the server may have lost the collection
                raise
        return as_candidates(hits)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _query(self, requests: list[models.QueryRequest]) -> list[list[Any]]:
        if not requests:
            return []
        responses = await self._client.query_batch_points(
            self.collection, requests, timeout=math.ceil(self._timeout_s)
        )
        return [response.points for response in responses]

    async def _filled(self) -> None:
        """Fill the collection unless it is complete. Raises DependencyUnavailable.

        Callers share one filling; one that failed is tried again by the next caller. Other
        replicas may fill at the same time: they write the same points.
        """
        if self._filling is None or (self._filling.done() and self._failed(self._filling)):
            self._filling = asyncio.create_task(self._fill())
        async with _translated("cannot be filled"):
            # Shielded: a request that gives up must not stop what the others wait for.
            await asyncio.shield(self._filling)

    async def _fill(self) -> None:
        n_items = len(self._bundle.item_vectors)
        if await self._count() == n_items:
            return
        await self._create()
        for start in range(0, n_items, _UPSERT_POINTS):
            rows = range(start, min(start + _UPSERT_POINTS, n_items))
            await self._client.upsert(self.collection, self._points(rows), wait=True)
        stored = await self._count()
        if stored != n_items:
            raise DependencyUnavailable(
                f"Qdrant collection {self.collection} holds {stored} of {n_items} items"
            )

    async def _remove_left_behind(self) -> None:
        if self._left_behind is None:
            return
        async with _translated("did not remove old collections"):
            found = [known.name for known in (await self._client.get_collections()).collections]
            for name in await asyncio.to_thread(self._left_behind, found):
                if name != self.collection:  # whose batches may still be on their way
                    await self._client.delete_collection(name)
                    _log.info("collection removed", collection=name)

    async def _count(self) -> int:
        if not await self._client.collection_exists(self.collection):
            return -1
        return (await self._client.count(self.collection, exact=True)).count

    async def _create(self) -> None:
        if not await self._client.collection_exists(self.collection):
            try:
                await self._client.create_collection(
                    self.collection,
                    vectors_config=models.VectorParams(
                        size=self._bundle.manifest.dimension, distance=models.Distance.DOT
                    ),
                    hnsw_config=models.HnswConfigDiff(full_scan_threshold=FULL_SCAN_KB),
                )
            except (ApiException, grpc.RpcError, ValueError):
                # Another replica may have been first; anything else is a failure.
                if not await self._client.collection_exists(self.collection):
                    raise
        for field, schema in _PAYLOAD_INDEXES.items():
            await self._client.create_payload_index(self.collection, field, schema)

    def _points(self, rows: range) -> list[models.PointStruct]:
        items = self._bundle.items
        vectors = self._bundle.item_vectors
        return [
            models.PointStruct(id=row, vector=vectors[row].tolist(), payload=items.payload(row))
            for row in rows
        ]

    @staticmethod
    def _failed(task: asyncio.Task[None]) -> bool:
        return task.cancelled() or task.exception() is not None


@asynccontextmanager
async def _translated(what: str) -> AsyncIterator[None]:
    """Turn what the client raises into DependencyUnavailable."""
    try:
        yield
    except (ApiException, QdrantException, grpc.RpcError, OSError) as error:
        reason = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
        raise DependencyUnavailable(f"Qdrant {what}: {reason or error!r}") from error


def _request(
    vector: list[float], condition: models.Filter | None, limit: int, *, exact: bool
) -> models.QueryRequest:
    return models.QueryRequest(
        query=vector,
        limit=limit,
        filter=condition,
        with_payload=False,
        params=models.SearchParams(exact=exact),
    )


def _filter(wanted: SearchFilter) -> models.Filter | None:
    must: list[Any] = []
    if wanted.genres:
        match = models.MatchAny(any=list(wanted.genres))
        must.append(models.FieldCondition(key="genres", match=match))
    if wanted.min_rating is not None:
        at_least = models.Range(gte=least_rating(wanted.min_rating))
        must.append(models.FieldCondition(key="avg_rating", range=at_least))
    if wanted.year_from is not None or wanted.year_to is not None:
        years = models.Range(gte=wanted.year_from, lte=wanted.year_to)
        must.append(models.FieldCondition(key="year", range=years))
    must_not: list[Any] = []
    if len(wanted.exclude):
        must_not.append(models.HasIdCondition(has_id=wanted.exclude.tolist()))
    return models.Filter(must=must, must_not=must_not) if must or must_not else None
