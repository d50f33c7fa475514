"""Requests to the service as values: what is sent, what is read back, and what went wrong.

Both clients of `marquee.client` send these; nothing here waits or connects. What cannot be sent at
all is a ValueError that names the argument.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, SupportsIndex, TypeVar
from urllib.parse import quote

import httpx

from marquee.answers import (
    Features,
    HistoryItem,
    Id,
    Item,
    PopularItem,
    Receipt,
    Similar,
    Slate,
    Stored,
    Told,
)

T = TypeVar("T")
# No path can name them: clients and proxies take such segments out of an address.
_UNSPEAKABLE = ("", ".", "..")


class MarqueeError(Exception):
    """Anything that kept a call from being answered; the message is one line."""


class Unreachable(MarqueeError):
    """No answer came, after all tries, or one that is not the service's."""


class Refused(MarqueeError):
    """The service answered with an error, or a proxy did: then `code` is "unknown"."""

    def __init__(self, status: int, problem: Mapping[str, Any], request_id: str | None) -> None:
        """problem: {code, message, field}, as in the service's errors."""
        self.status = status
        self.code = str(problem.get("code", "unknown"))
        self.message = str(problem.get("message", f"HTTP {status}"))
        self.field: str | None = problem.get("field")
        self.request_id = request_id
        super().__init__(f"{status} {self.code}: {self.message}")


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request. `part`: the field of the answer that is wanted; None for all of it, "" for the
    text. `once`: it must not reach the service twice, so it goes again only if it cannot have."""

    method: str
    path: str
    params: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    part: str | None = None
    fresh: bool = False
    once: bool = False

    def __post_init__(self) -> None:
        for name, value in {**self.params, **(self.body or {})}.items():
            _check_sendable(name, value)

    def read(self, response: httpx.Response) -> T:
        """What the answer holds. Raises Refused, and Unreachable when it is not the service's."""
        if not response.is_success:  # nor is a redirect an answer
            raise _refused(response)
        try:
            content: Any = response.text if self.part == "" else response.json()
            result: T = content[self.part] if self.part else content
        except (ValueError, KeyError, TypeError):
            kind = response.headers.get("content-type", "nothing")
            raise Unreachable(
                f"HTTP {response.status_code} with {kind}: not an answer of the service"
            ) from None
        return result

    def may_go_again(self, response: httpx.Response) -> bool:
        """Whether the answer says that another try may succeed, and harms nothing."""
        is_own = "json" in response.headers.get("content-type", "")
        if response.status_code == 429 or (response.status_code == 404 and not is_own):
            return True  # the latter: Ray Serve is there, the service is not yet
        if response.status_code == 503:  # the service's own: nothing was stored
            return not self.once or is_own
        return response.status_code in (502, 504) and not self.once

    def may_follow(self, error: httpx.RequestError) -> bool:
        """The same of a connection that failed."""
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
            return True
        return not self.once and not isinstance(error, httpx.UnsupportedProtocol)


def _refused(response: httpx.Response) -> Refused:
    try:
        content = response.json()
        problem, request_id = dict(content["error"]), content["request_id"]
    except (ValueError, KeyError, TypeError):  # a proxy's page
        problem, request_id = {}, response.headers.get("x-request-id")
    return Refused(response.status_code, problem, request_id)


def _check_sendable(name: str, value: object) -> None:
    """Raises ValueError for what JSON and UTF-8 have no words for."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot be sent: {error}") from None


def _id(name: str, value: Id) -> Id:
    """The id. Raises ValueError for what is none."""
    if isinstance(value, str):
        if value in _UNSPEAKABLE:
            raise ValueError(f"{name} must not be {value!r}")
        _check_sendable(name, value)
        return value
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise ValueError(f"{name} must be an integer or a text, not {type(value).__name__}")
    return operator.index(value)  # of numpy's integers too


def _segment(name: str, value: Id) -> str:
    return quote(str(_id(name, value)), safe="")


def recommend(user_id: Id, options: Mapping[str, Any], *, fresh: bool = False) -> Call[Slate]:
    """A slate; options: as SlateOptions, and `paginate`."""
    body = {"user_id": _id("user_id", user_id), **options}
    return Call("POST", "/recommend", body=body, fresh=fresh)


def next_page(user_id: Id, cursor: str) -> Call[Slate]:
    """The page after the one that gave the cursor."""
    return Call("POST", "/recommend", body={"user_id": _id("user_id", user_id), "cursor": cursor})


def feedback(user_id: Id, item_id: Id, event_type: str) -> Call[Stored]:
    """An event."""
    ids = {"user_id": _id("user_id", user_id), "item_id": _id("item_id", item_id)}
    return Call("POST", "/feedback", body={**ids, "event_type": event_type}, once=True)


def why(user_id: Id, item_id: Id) -> Call[Told]:
    """Why an item is for a user."""
    user, item = _segment("user_id", user_id), _segment("item_id", item_id)
    return Call("GET", f"/users/{user}/why/{item}")


def similar(item_id: Id, limit: int) -> Call[Similar]:
    """Items most like one."""
    return Call("GET", f"/similar/{_segment('item_id', item_id)}", {"limit": limit})


def popular(limit: int, genres: list[str], window: str | None) -> Call[list[PopularItem]]:
    """What most watch."""
    params = {"limit": limit, "genre": genres, **({"window": window} if window else {})}
    return Call("GET", "/popular", params, part="items")


def items(q: str, limit: int) -> Call[list[Item]]:
    """Items by title."""
    return Call("GET", "/items", {"q": q, "limit": limit}, part="items")


def history(user_id: Id, limit: int) -> Call[list[HistoryItem]]:
    """What is known of a user."""
    path = f"/users/{_segment('user_id', user_id)}/history"
    return Call("GET", path, {"limit": limit}, part="history")


def features(user_id: Id) -> Call[Features]:
    """A user's last five minutes."""
    return Call("GET", f"/users/{_segment('user_id', user_id)}/features")


def erase(user_id: Id) -> Call[Receipt]:
    """A user's end."""
    return Call("DELETE", f"/users/{_segment('user_id', user_id)}")


def users(limit: int) -> Call[list[Id]]:
    """Some users of the bundle."""
    return Call("GET", "/users", {"limit": limit}, part="users")


def plain(path: str) -> Call[dict[str, Any]]:
    """/info, /ready or /health."""
    return Call("GET", path)


def metrics() -> Call[str]:
    """Prometheus' text."""
    return Call("GET", "/metrics", part="")
