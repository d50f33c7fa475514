"""A stand-in for a Qdrant server: its gRPC services in front of qdrant-client's local engine.

It answers the calls that the adapter makes, over a real socket, so that what the adapter says is
what a server would be sent. The engine behind it is not the server's.
"""

from contextlib import asynccontextmanager

import grpc
from qdrant_client import QdrantClient
from qdrant_client import grpc as messages
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.grpc.collections_service_pb2_grpc import (
    CollectionsServicer,
    add_CollectionsServicer_to_server,
)
from qdrant_client.grpc.points_service_pb2_grpc import PointsServicer, add_PointsServicer_to_server

_DONE = messages.PointsOperationResponse(result={"status": messages.UpdateStatus.Completed})


class _Server(CollectionsServicer, PointsServicer):
    def __init__(self, api_key):
        self.engine = QdrantClient(":memory:")
        self._api_key = api_key

    async def _check(self, context):
        if dict(context.invocation_metadata()).get("api-key") != self._api_key:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "Invalid API key")

    async def CollectionExists(self, request, context):  # noqa: N802
        await self._check(context)
        exists = self.engine.collection_exists(request.collection_name)
        return messages.CollectionExistsResponse(result={"exists": exists})

    async def Create(self, request, context):  # noqa: N802
        await self._check(context)
        self.engine.create_collection(
            request.collection_name,
            vectors_config=GrpcToRest.convert_vectors_config(request.vectors_config),
        )
        return messages.CollectionOperationResponse(result=True)

    async def List(self, request, context):  # noqa: N802
        await self._check(context)
        found = self.engine.get_collections().collections
        return messages.ListCollectionsResponse(
            collections=[messages.CollectionDescription(name=known.name) for known in found]
        )

    async def Delete(self, request, context):  # noqa: N802
        await self._check(context)
        self.engine.delete_collection(request.collection_name)
        return messages.CollectionOperationResponse(result=True)

    async def CreateFieldIndex(self, request, context):  # noqa: N802
        await self._check(context)
        return _DONE

    async def Upsert(self, request, context):  # noqa: N802
        await self._check(context)
        self.engine.upsert(
            request.collection_name, [GrpcToRest.convert_point_struct(p) for p in request.points]
        )
        return _DONE

    async def Count(self, request, context):  # noqa: N802
        await self._check(context)
        count = self.engine.count(request.collection_name, exact=request.exact).count
        return messages.CountResponse(result={"count": count})

    async def QueryBatch(self, request, context):  # noqa: N802
        await self._check(context)
        requests = [GrpcToRest.convert_query_points(query) for query in request.query_points]
        found = self.engine.query_batch_points(request.collection_name, requests)
        return messages.QueryBatchResponse(
            result=[
                messages.BatchResult(
                    result=[RestToGrpc.convert_scored_point(hit) for hit in response.points]
                )
                for response in found
            ]
        )


@asynccontextmanager
async def running(api_key):
    """A server on a free port of this machine; yields its address."""
    server = grpc.aio.server()
    services = _Server(api_key)
    add_CollectionsServicer_to_server(services, server)
    add_PointsServicer_to_server(services, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{port - 1}"  # as if REST were on the port below
    finally:
        await server.stop(None)
