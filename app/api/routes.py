"""The HTTP API: reads requests, asks the service, writes JSON."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import orjson
from fastapi import FastAPI, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse

from app import domain
from app.api import schemas
from app.api.edge import Call, Edge, error_body, error_headers
from app.api.users import add_users
from app.errors import InvalidRequest, MarqueeError
from app.service import Page, Service
from app.settings import Settings

_PAGE = Path(__file__).parent / "page"
_PAGE_HEADERS = {
    "Cache-Control": "no-cache",  # ask again, so that modules of two releases never mix
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_B = TypeVar("_B", bound=BaseModel)

Limit = Annotated[int, Query(ge=1, le=1000)]
UserKey = Annotated[str, PathParameter(min_length=1, max_length=128)]
ItemKey = Annotated[str, PathParameter(min_length=1, max_length=128)]


Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def build_api(service: Service, settings: Settings, lifespan: Lifespan) -> Edge:
    """The application over a service; `lifespan` surrounds its serving."""
    api = FastAPI(
        title="Marquee",
        description="Personal recommendations from a table of who watched what.",
        version="1",
        lifespan=lifespan,
        responses={422: {"model": schemas.ErrorResponse}, 503: {"model": schemas.ErrorResponse}},
    )
    handlers = Handlers(service)
    _add_recommendations(api, handlers)
    _add_feedback(api, service, handlers)
    add_users(api, service)
    _add_catalogue(api, service)
    _add_operations(api, service)
    _add_page(api)
    _add_errors(api)
    return Edge(
        api,
        direct={"/recommend": handlers.recommend, "/feedback": handlers.feedback},
        metrics=service.metrics,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_ms / 1000,
        access_log=settings.access_log,
    )


class Handlers:
    """The two busiest endpoints, from body to body."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def recommend(self, body: bytes, call: Call) -> bytes:
        """JSON of a RecommendRequest -> JSON of a RecommendResponse."""
        request = _parse(schemas.RecommendRequest, body)
        return await self.slate(request.query(read_cache=call.read_cache), call)

    async def slate(self, query: domain.Query, call: Call) -> bytes:
        """JSON of a RecommendResponse."""
        slate = await self._service.recommend(query)
        return orjson.dumps(
            {
                "user_id": query.user_id,
                "recommendations": orjson.Fragment(slate.recommendations),
                "strategy": slate.strategy,
                "degraded": slate.degraded,
                "request_id": call.request_id,
                "latency_ms": round((time.perf_counter() - call.started_at) * 1000, 2),
                "model_version": slate.model_version,
            }
        )

    async def feedback(self, body: bytes, call: Call) -> bytes:
        """JSON of a FeedbackRequest -> JSON of a FeedbackResponse."""
        request = _parse(schemas.FeedbackRequest, body)
        event, revision = await self._service.feedback(
            request.user_id, request.item_id, request.event_type
        )
        return orjson.dumps(
            {
                "status": "stored",
                "user_id": event.user_id,
                "item_id": event.item_id,
                "event_type": event.event_type,
                "revision": revision,
                "request_id": call.request_id,
            }
        )


def _add_recommendations(api: FastAPI, handlers: Handlers) -> None:
    @api.post(
        "/recommend",
        response_model=schemas.RecommendResponse,
        openapi_extra=_body_of(schemas.RecommendRequest),
    )
    async def recommend(request: Request) -> Response:
        """A slate for a user. `Cache-Control: no-cache` computes it afresh."""
        return _raw(await handlers.recommend(await request.body(), request.scope["call"]))

    @api.get("/api/v1/recommendations/{user_id}", response_model=schemas.RecommendResponse)
    async def recommendations(
        request: Request,
        user_id: UserKey,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10,
    ) -> Response:
        """The same with a GET: the user's slate under no conditions."""
        call = request.scope["call"]
        query = domain.Query(user_id, limit, read_cache=call.read_cache)
        return _raw(await handlers.slate(query, call))


def _add_feedback(api: FastAPI, service: Service, handlers: Handlers) -> None:
    @api.post(
        "/feedback",
        response_model=schemas.FeedbackResponse,
        openapi_extra=_body_of(schemas.FeedbackRequest),
        responses={404: {"model": schemas.ErrorResponse}},
    )
    async def feedback(request: Request) -> Response:
        """Record an event. A 200 means that it is stored and that the next slate reflects it."""
        return _raw(await handlers.feedback(await request.body(), request.scope["call"]))

    @api.get("/users/{user_id}/history", response_model=schemas.HistoryResponse)
    async def history(user_id: UserKey, limit: Limit = 100) -> Response:
        """What is known of the user, newest first."""
        return _json({"user_id": user_id, "history": await service.history(user_id, limit)})

    @api.get("/users", response_model=schemas.UsersResponse)
    async def users(limit: Limit = 20) -> Response:
        """Some users of the bundle, to try the service with."""
        return _json({"users": service.users(limit)})


def _add_catalogue(api: FastAPI, service: Service) -> None:
    not_found: dict[int | str, dict[str, Any]] = {404: {"model": schemas.ErrorResponse}}

    @api.get("/similar/{item_id}", response_model=schemas.SimilarResponse, responses=not_found)
    async def similar(item_id: ItemKey, limit: Limit = 10) -> Response:
        """Items most like this one."""
        item, page = service.similar(item_id, limit)
        return _json({"item": item, "similar": page.items, "model_version": page.version})

    @api.get("/popular", response_model=schemas.PopularResponse)
    async def popular(
        limit: Limit = 10,
        genre: Annotated[list[str] | None, Query(max_length=100)] = None,
        window: Literal["5m"] | None = None,
    ) -> Response:
        """What most people watch lately; `genre` may be given several times (any of).

        `window=5m`: what gathered most events in the last five minutes, perhaps nothing.
        """
        popular = service.popular_now if window else service.popular
        return _page(popular(limit, tuple(genre or ())))

    @api.get("/items", response_model=schemas.ItemsResponse)
    async def items(
        q: Annotated[str, Query(min_length=1, max_length=200)], limit: Limit = 10
    ) -> Response:
        """Items whose title contains every word of `q`, most popular first."""
        return _page(service.search_items(q, limit))


def _add_operations(api: FastAPI, service: Service) -> None:
    @api.get("/health")
    async def health() -> Response:
        """The process answers."""
        return _json({"status": "ok"})

    @api.get("/ready")
    async def ready() -> Response:
        """A verified bundle is loaded. A store that is away degrades answers, not readiness."""
        version = service.version()
        dependencies = await service.dependencies()
        return _json({"status": "ready", "model_version": version, "dependencies": dependencies})

    @api.get("/info")
    async def info() -> Response:
        """What answers and how it was measured."""
        return _json(service.info())

    @api.get("/metrics")
    async def metrics() -> Response:
        """This replica's counters in Prometheus' text format."""
        return Response(service.metrics.exposition(), media_type="text/plain; version=0.0.4")


def _add_page(api: FastAPI) -> None:
    @api.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(_PAGE / "index.html", headers=_PAGE_HEADERS)

    files = StaticFiles(directory=_PAGE)

    @api.get("/page/{name}", include_in_schema=False)
    async def module(request: Request, name: str) -> Response:
        answer = await files.get_response(name, request.scope)
        answer.headers.update(_PAGE_HEADERS)
        return answer


def _add_errors(api: FastAPI) -> None:
    @api.exception_handler(MarqueeError)
    async def known_error(request: Request, error: MarqueeError) -> Response:
        return _error(request, error, error_headers(error))

    @api.exception_handler(RequestValidationError)
    async def bad_parameter(request: Request, error: RequestValidationError) -> Response:
        return _error(request, _first_problem(error.errors()))

    @api.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        problem = MarqueeError(str(error.detail))
        problem.status = error.status_code
        problem.code = "not_found" if error.status_code == 404 else "bad_request"
        return _error(request, problem, error.headers)


def _parse(schema: type[_B], body: bytes) -> _B:
    """The body as the schema has it; InvalidRequest names the first field that is wrong."""
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        raise _first_problem(error.errors(include_url=False)) from None


def _first_problem(errors: Any) -> InvalidRequest:
    first = errors[0]
    places = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    field = ".".join(places) or "body"
    return InvalidRequest(f"{field}: {first['msg']}", field=field)


def _body_of(schema: type[BaseModel]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


def _page(page: Page) -> Response:
    return _json({"items": page.items, "model_version": page.version})


def _json(content: dict[str, Any]) -> Response:
    return _raw(orjson.dumps(content))


def _raw(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _error(request: Request, error: MarqueeError, headers: Any = None) -> Response:
    body = error_body(error, request.scope["call"].request_id)
    return Response(body, error.status, headers, "application/json")
