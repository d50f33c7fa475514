"""In front of Serve's own layers in an ingress replica, which cost as much as a cached answer.

Before the application sees a request, Serve gives it a context, a task, a watch on its caller and
several metrics. What goes past them (docs/adr/0035):

in_place_of_serve   every request of the API: where nothing scales by Serve's count of requests
before_serve        only whoever is refused for overload, before anything of the request is read: a
                    replica must refuse as fast as a flood comes. For the others Serve is told not
                    to watch for callers who go away, who are computed in a batch with others anyway

`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` names one of the two; Serve calls it in every replica.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import Overloaded

IN_PLACE_OF_SERVE = "app.api.front:in_place_of_serve"

# Raises Overloaded where a slate would come too late; is told whether it may be a cached one.
CheckLoad = Callable[[bool], None]

_OF_SERVE = "/-/"  # health checks and routes
_UNWATCHED = (b"x-request-disconnect-disabled", b"?1")
_REQUEST_ID = b"x-request-id"

# The API of this process: Serve makes the layers before and after it without either knowing.
_served: list[tuple[ASGIApp, CheckLoad]] = []


def stand_before(api: ASGIApp, check_load: CheckLoad) -> None:
    """The API that this process serves from now on."""
    _served[:] = [(api, check_load)]


def in_place_of_serve() -> list[Middleware]:
    """For Serve: requests of the API do not pass its layers."""
    return [Middleware(Front, passes_serve=False)]


def before_serve() -> list[Middleware]:
    """For Serve: refusals for overload do not pass its layers."""
    return [Middleware(Front, passes_serve=True)]


class Front:
    """The outermost ASGI layer of the process. Without an API, as in the other replicas and in
    Serve's proxy, it does nothing."""

    def __init__(self, app: ASGIApp, *, passes_serve: bool) -> None:
        self._app = app
        self._passes_serve = passes_serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        if _served and scope["type"] == "http" and not scope["path"].startswith(_OF_SERVE):
            api, check_load = _served[0]
            if not self._passes_serve or overload(scope, check_load) is not None:
                await api(scope, receive, send)  # which refuses it in the second case
                return
            scope["headers"].append(_UNWATCHED)
            send = _with_one_id(send)
        await self._app(scope, receive, send)


def _with_one_id(send: Send) -> Send:
    """`send` that leaves out the request id that Serve adds to the one of the API."""

    async def send_one_id(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message["headers"]
            # Serve's is the last, and the only one of an answer that is its own.
            if _REQUEST_ID in (name for name, _ in headers[:-1]) and headers[-1][0] == _REQUEST_ID:
                message["headers"] = headers[:-1]
        await send(message)

    return send_one_id


def overload(scope: Scope, check_load: CheckLoad) -> Overloaded | None:
    """Why the request need not even be read, if so."""
    if scope["path"] == "/recommend" and scope["method"] == "POST":
        try:
            check_load(may_read_cache(dict(scope["headers"])))
        except Overloaded as error:
            return error
    return None


def may_read_cache(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the caller takes a cached slate."""
    return b"no-cache" not in headers.get(b"cache-control", b"")
