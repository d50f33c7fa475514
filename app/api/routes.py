"""The HTTP API: reads requests, asks the service, writes JSON."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any, Literal, TypeVar, cast

import orjson
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from app import domain
from app.api import schemas
from app.api.call import Call
from app.api.edge import Edge, error_body, error_headers
from app.api.gate import Gate
from app.api.json_depth import check_depth
from app.api.openapi import DESCRIPTION, ERRORS, body_of, document
from app.api.paths import PathId
from app.api.query import check_query
from app.api.site import add_site
from app.api.users import add_users
from app.errors import InvalidRequest, MarqueeError
from app.fields import Words, problem
from app.limits import RateLimiter
from app.pages import SlatePage
from app.service import Page, Service
from app.settings import Settings

_B = TypeVar("_B", bound=BaseModel)

Limit = Annotated[int, Query(ge=1, le=1000)]

# Of what the framework refuses by itself.
_CODES = {404: "not_found", 405: "method_not_allowed"}

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def build_api(
    service: Service, settings: Settings, lifespan: Lifespan, limiter: RateLimiter | None = None
) -> ASGIApp:
    """The application over a service; `lifespan` surrounds its serving.

    limiter: None to count in this process alone. Raises KeysError when the API keys cannot be
    read.
    """
    origins = [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]
    gate = Gate(
        limiter or RateLimiter(None),
        per_minute=settings.rate_limit_per_minute,
        keys_file=settings.api_keys,
        audit_file=settings.audit_log,
        origins=origins,
    )
    handlers = Handlers(service, gate, settings.max_json_depth)
    edge = Edge(
        build_routes(service, handlers, _following(gate, lifespan)),
        direct={"/recommend": handlers.recommend, "/feedback": handlers.feedback},
        check_load=service.check_load,
        gate=gate,
        metrics=service.metrics,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_ms / 1000,
        access_log=settings.access_log,
    )
    return _with_cors(edge, origins) if origins else edge


def build_routes(service: Service, handlers: Handlers, lifespan: Lifespan | None = None) -> FastAPI:
    """What FastAPI routes and documents."""
    api = FastAPI(
        title="Marquee",
        description=DESCRIPTION,
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=ERRORS,
    )
    # What probes and browsers ask for may carry any query.
    strict = APIRouter(dependencies=[Depends(check_query)])
    _add_recommendations(strict, service, handlers)
    _add_feedback(strict, service, handlers)
    add_users(strict, service, lambda call, user_id: handlers.gate.count_user(call, user_id))
    _add_catalogue(strict, service)
    api.include_router(strict)
    _add_operations(api, service)
    add_site(api)
    _add_errors(api)
    document(api)
    return api


def openapi_document() -> dict[str, Any]:
    """The document of the API. No handler is called for it, so it needs no service."""
    return build_routes(cast(Service, None), cast(Handlers, None)).openapi()


def _following(gate: Gate, lifespan: Lifespan) -> Lifespan:
    """The lifespan, and the keys are read again when they change."""

    @asynccontextmanager
    async def both(api: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(gate.follow_keys())
        try:
            async with lifespan(api):
                yield
        finally:
            following.cancel()

    return both


def _with_cors(edge: ASGIApp, origins: list[str]) -> ASGIApp:
    return CORSMiddleware(
        edge,
        allow_origins=origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=[
            "Authorization",
            "Cache-Control",
            "Content-Type",
            "X-API-Key",
            "X-Request-ID",
        ],
        expose_headers=[
            "X-Request-ID",
            "Retry-After",
            "RateLimit-Limit",
            "RateLimit-Remaining",
            "RateLimit-Reset",
            "RateLimit-Policy",
        ],
    )


class Handlers:
    """The two busiest endpoints, from body to body."""

    def __init__(self, service: Service, gate: Gate, max_json_depth: int) -> None:
        self._service = service
        self._max_json_depth = max_json_depth
        self.gate = gate

    async def recommend(self, body: bytes, call: Call) -> bytes:
        """JSON of a RecommendRequest or NextPageRequest -> JSON of a RecommendResponse."""
        if b'"cursor"' in body and _is_next_page(body):
            return await self._next_page(body, call)
        request = self._parse(schemas.RecommendRequest, body)
        self.gate.count_user(call, request.user_id)
        if request.rules is not None and (asked := request.rules.value()) is not None:
            self._service.check_rules(asked)
        query = request.query(read_cache=call.read_cache, configured=self._service.rules)
        if request.paginate:
            return _slate_page(await self._service.first_page(query), query.user_id, call)
        return await self.slate(query, call)

    async def slate(self, query: domain.Query, call: Call) -> bytes:
        """JSON of a RecommendResponse."""
        slate = await self._service.recommend(query)
        return orjson.dumps(_answer(slate, query.user_id, call))

    async def _next_page(self, body: bytes, call: Call) -> bytes:
        request = self._parse(schemas.NextPageRequest, body)
        self.gate.count_user(call, request.user_id)
        page = await self._service.next_page(
            request.user_id, request.cursor, request.num_recommendations
        )
        return _slate_page(page, request.user_id, call)

    async def feedback(self, body: bytes, call: Call) -> bytes:
        """JSON of a FeedbackRequest -> JSON of a FeedbackResponse."""
        request = self._parse(schemas.FeedbackRequest, body)
        self.gate.count_user(call, request.user_id)
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

    def _parse(self, schema: type[_B], body: bytes) -> _B:
        """The body as the schema has it; InvalidRequest names the first field that is wrong."""
        check_depth(body, self._max_json_depth)
        try:
            return schema.model_validate_json(body)
        except ValidationError as error:
            raise _first_problem(error.errors(include_url=False)) from None


def _is_next_page(body: bytes) -> bool:
    """Whether the body itself, not a text in it, has a field `cursor`."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(content, dict) and "cursor" in content


def _answer(slate: domain.Slate, user_id: domain.UserId, call: Call) -> dict[str, Any]:
    """The fields of a RecommendResponse."""
    answer = {
        "user_id": user_id,
        "recommendations": orjson.Fragment(slate.recommendations),
        "strategy": slate.strategy,
        "degraded": slate.degraded,
        "request_id": call.request_id,
        "latency_ms": round((time.perf_counter() - call.started_at) * 1000, 2),
        "model_version": slate.model_version,
    }
    if slate.explained is not None:
        answer["explained"] = orjson.Fragment(slate.explained)
    return answer


def _slate_page(page: SlatePage, user_id: domain.UserId, call: Call) -> bytes:
    answer = _answer(page.slate, user_id, call)
    return orjson.dumps(answer | {"next_cursor": page.next_cursor})


def _add_recommendations(api: APIRouter, service: Service, handlers: Handlers) -> None:
    @api.post(
        "/recommend",
        response_model=schemas.RecommendResponse,
        openapi_extra=body_of(schemas.RecommendRequest, schemas.NextPageRequest),
        responses={410: {"model": schemas.ErrorResponse, "description": "The cursor is old."}},
    )
    async def recommend(request: Request) -> Response:
        """A slate for a user. `Cache-Control: no-cache` computes it afresh."""
        return _raw(await handlers.recommend(await request.body(), request.scope["call"]))

    @api.get("/api/v1/recommendations/{user_id}", response_model=schemas.RecommendResponse)
    async def recommendations(
        request: Request,
        user_id: PathId,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10,
    ) -> Response:
        """The same with a GET: the user's slate under no conditions."""
        call = request.scope["call"]
        handlers.gate.count_user(call, user_id)
        rules = service.rules
        query = domain.Query(user_id, limit, read_cache=call.read_cache, rules=rules)
        return _raw(await handlers.slate(query, call))


def _add_feedback(api: APIRouter, service: Service, handlers: Handlers) -> None:
    @api.post(
        "/feedback",
        response_model=schemas.FeedbackResponse,
        openapi_extra=body_of(schemas.FeedbackRequest),
    )
    async def feedback(request: Request) -> Response:
        """Record an event. A 200 means that it is stored and that the next slate reflects it."""
        return _raw(await handlers.feedback(await request.body(), request.scope["call"]))

    @api.get("/users/{user_id}/history", response_model=schemas.HistoryResponse)
    async def history(request: Request, user_id: PathId, limit: Limit = 100) -> Response:
        """What is known of the user, newest first."""
        handlers.gate.count_user(request.scope["call"], user_id)
        past = await service.history(user_id, limit)
        return _json({"user_id": user_id, "history": past.rows, "degraded": past.degraded})

    @api.get("/users/{user_id}/why/{item_id}", response_model=schemas.WhyResponse)
    async def why(request: Request, user_id: PathId, item_id: PathId) -> Response:
        """Why an item is for a user, in prose where the service has somebody to write it."""
        handlers.gate.count_user(request.scope["call"], user_id)
        account = await service.why(user_id, item_id)
        return _json(
            {
                "user_id": user_id,
                "item": account.item,
                "text": account.text,
                "written_by": account.written_by,
                "because": account.because,
                "degraded": account.degraded,
                "model_version": account.version,
            }
        )

    @api.get("/users", response_model=schemas.UsersResponse)
    async def users(limit: Limit = 20) -> Response:
        """Some users of the bundle, to try the service with."""
        return _json({"users": service.users(limit)})


def _add_catalogue(api: APIRouter, service: Service) -> None:
    @api.get("/similar/{item_id}", response_model=schemas.SimilarResponse)
    async def similar(item_id: PathId, limit: Limit = 10) -> Response:
        """Items most like this one, falling: first those that share most users with it, by the
        shrunk cosine of who has what; behind these by the cosine of the vectors, scaled to stay
        below. An item that nobody has yet has the cosine of the vectors alone."""
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
        page = popular(limit, tuple(genre or ()))
        return _json(
            {"items": page.items, "degraded": page.degraded, "model_version": page.version}
        )

    @api.get("/items", response_model=schemas.ItemsResponse)
    async def items(q: Annotated[Words, Query()], limit: Limit = 10) -> Response:
        """Items whose title contains every word of `q`, most popular first."""
        return _page(service.search_items(q, limit))

    @api.get("/info")
    async def info() -> Response:
        """What answers and how it was measured."""
        return _json(service.info())


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

    @api.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """This replica's counters in Prometheus' text format."""
        return Response(service.metrics.exposition(), media_type="text/plain; version=0.0.4")


def _add_errors(api: FastAPI) -> None:
    @api.exception_handler(MarqueeError)
    async def known_error(request: Request, error: MarqueeError) -> Response:
        return _error(request, error, error_headers(error))

    @api.exception_handler(RequestValidationError)
    async def bad_parameter(request: Request, error: RequestValidationError) -> Response:
        return _error(request, _first_problem(error.errors()))

    @api.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        refusal = MarqueeError(str(error.detail))
        refusal.status = error.status_code
        refusal.code = _CODES.get(error.status_code, "bad_request")
        return _error(request, refusal, error.headers)


def _first_problem(errors: Any) -> InvalidRequest:
    first = errors[0]
    places = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    field = ".".join(places) or "body"
    return InvalidRequest(f"{field}: {problem(first)}", field=field)


def _page(page: Page) -> Response:
    return _json({"items": page.items, "model_version": page.version})


def _json(content: dict[str, Any]) -> Response:
    return _raw(orjson.dumps(content))


def _raw(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _error(request: Request, error: MarqueeError, headers: Any = None) -> Response:
    body = error_body(error, request.scope["call"].request_id)
    return Response(body, error.status, headers, "application/json")
