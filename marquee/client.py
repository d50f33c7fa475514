"""Clients of the HTTP API: `Client`, and `AsyncClient` with the same methods to await.

    with Client("http://localhost:8000") as marquee:
        slate = marquee.recommend(1, num_recommendations=5, filters={"genres": ["Comedy"]})
        marquee.feedback(1, item_id(slate["recommendations"][0]), "watch")

A call that met a busy or restarting service goes again (see `Retry`); feedback only when the first
try cannot have been stored, so that no event is counted twice. What fails raises `Refused` (the
service said why) or `Unreachable`; both are `MarqueeError`. An argument that cannot be sent is a
mistake in the program: a ValueError that names it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Self, TypeVar, Unpack
from urllib.parse import urlsplit

import httpx

from marquee import calls
from marquee.answers import (
    Features,
    HistoryItem,
    Id,
    Item,
    PopularItem,
    Receipt,
    Recommendation,
    Similar,
    Slate,
    SlateOptions,
    Stored,
    Told,
    item_id,
)
from marquee.calls import Call, MarqueeError, Refused, Unreachable
from marquee.retry import Retry

__all__ = ["AsyncClient", "Client", "MarqueeError", "Refused", "Retry", "Unreachable", "item_id"]

T = TypeVar("T")
_RETRY = Retry()


def _options(url: str, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    if not _is_address(url):
        raise ValueError(f"{url!r} is no address such as http://localhost:8000")
    if api_key and not (api_key.isascii() and api_key.isprintable()):
        raise ValueError("api_key has characters that no key has")
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    return {"base_url": url, "headers": headers, "timeout": timeout_s}


def _is_address(url: str) -> bool:
    try:
        httpx.URL(url)
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, httpx.InvalidURL):
        return False


def _arguments(call: Call[Any]) -> dict[str, Any]:
    """What httpx is given; every try of a call has the same request id.

    Raises ValueError for an address that is too long.
    """
    try:
        url = httpx.URL(call.path, params=call.params)
    except httpx.InvalidURL as error:
        raise ValueError(f"an argument cannot be sent: {error}") from None
    headers = {"x-request-id": uuid.uuid4().hex}
    if call.fresh:
        headers["cache-control"] = "no-cache"
    return {
        "method": call.method,
        "url": url,
        "headers": headers,
        **({} if call.body is None else {"json": call.body}),
    }


def _wait_s(
    call: Call[Any], retry: Retry, failed: int, met: httpx.Response | httpx.RequestError
) -> float | None:
    """Seconds until the next try; None when the call ends with what it met."""
    if isinstance(met, httpx.Response):
        return retry.wait_s(failed, met) if call.may_go_again(met) else None
    return retry.wait_s(failed, None) if call.may_follow(met) else None


class Client:
    """Calls that wait for their answers. Safe to share between threads."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 10.0,
        retry: Retry = _RETRY,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """timeout_s: longest wait for one try. transport: httpx's way to the service.

        Raises ValueError for a URL or a key that can be none.
        """
        self._http = httpx.Client(transport=transport, **_options(url, api_key, timeout_s))
        self._retry = retry

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def recommend(
        self, user_id: Id, *, fresh: bool = False, **options: Unpack[SlateOptions]
    ) -> Slate:
        """A slate. fresh: computed now, whatever is cached."""
        return self._send(calls.recommend(user_id, options, fresh=fresh))

    def pages(self, user_id: Id, **options: Unpack[SlateOptions]) -> Iterator[Slate]:
        """One slate page by page; `num_recommendations` is the size of a page."""
        page = self._send(calls.recommend(user_id, {**options, "paginate": True}))
        yield page
        while cursor := page.get("next_cursor"):
            page = self._send(calls.next_page(user_id, cursor))
            yield page

    def recommendations(
        self, user_id: Id, **options: Unpack[SlateOptions]
    ) -> Iterator[Recommendation]:
        """One slate item by item, read in pages as far as is asked for."""
        for page in self.pages(user_id, **options):
            yield from page["recommendations"]

    def feedback(self, user_id: Id, item_id: Id, event_type: str) -> Stored:
        """Record a click, view, watch, like or dislike."""
        return self._send(calls.feedback(user_id, item_id, event_type))

    def why(self, user_id: Id, item_id: Id) -> Told:
        """Why an item is for a user, in prose where the service has somebody to write it."""
        return self._send(calls.why(user_id, item_id))

    def similar(self, item_id: Id, limit: int = 10) -> Similar:
        """Items most like one."""
        return self._send(calls.similar(item_id, limit))

    def popular(
        self, limit: int = 10, genres: Sequence[str] = (), window: str | None = None
    ) -> list[PopularItem]:
        """What most people watch lately, of any of the genres; window "5m": in five minutes."""
        return self._send(calls.popular(limit, list(genres), window))

    def items(self, q: str, limit: int = 10) -> list[Item]:
        """Items whose title contains every word."""
        return self._send(calls.items(q, limit))

    def history(self, user_id: Id, limit: int = 100) -> list[HistoryItem]:
        """What is known of a user, newest first."""
        return self._send(calls.history(user_id, limit))

    def features(self, user_id: Id) -> Features:
        """A user's last five minutes."""
        return self._send(calls.features(user_id))

    def erase(self, user_id: Id) -> Receipt:
        """Erase a user everywhere; the key needs the scope admin. Safe to repeat."""
        return self._send(calls.erase(user_id))

    def users(self, limit: int = 20) -> list[Id]:
        """Some users of the bundle."""
        return self._send(calls.users(limit))

    def info(self) -> dict[str, Any]:
        """What answers and how it was measured."""
        return self._send(calls.plain("/info"))

    def ready(self) -> dict[str, Any]:
        """The version that answers, and what is away. Raises Refused while there is none."""
        return self._send(calls.plain("/ready"))

    def metrics(self) -> str:
        """The counters of one replica in Prometheus' text format."""
        return self._send(calls.metrics())

    def _send(self, call: Call[T]) -> T:
        arguments, failed = _arguments(call), 0
        while True:
            met = self._try(arguments)
            failed += 1
            wait_s = None if _is_answer(met) else _wait_s(call, self._retry, failed, met)
            if wait_s is None:
                return call.read(_response(met, failed))
            time.sleep(wait_s)

    def _try(self, arguments: dict[str, Any]) -> httpx.Response | httpx.RequestError:
        try:
            return self._http.request(**arguments)
        except httpx.RequestError as error:
            return error


class AsyncClient:
    """Calls to await; one object for one event loop."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 10.0,
        retry: Retry = _RETRY,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """timeout_s: longest wait for one try. transport: httpx's way to the service.

        Raises ValueError for a URL or a key that can be none.
        """
        self._http = httpx.AsyncClient(transport=transport, **_options(url, api_key, timeout_s))
        self._retry = retry

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def recommend(
        self, user_id: Id, *, fresh: bool = False, **options: Unpack[SlateOptions]
    ) -> Slate:
        """A slate. fresh: computed now, whatever is cached."""
        return await self._send(calls.recommend(user_id, options, fresh=fresh))

    async def pages(self, user_id: Id, **options: Unpack[SlateOptions]) -> AsyncIterator[Slate]:
        """One slate page by page; `num_recommendations` is the size of a page."""
        page = await self._send(calls.recommend(user_id, {**options, "paginate": True}))
        yield page
        while cursor := page.get("next_cursor"):
            page = await self._send(calls.next_page(user_id, cursor))
            yield page

    async def recommendations(
        self, user_id: Id, **options: Unpack[SlateOptions]
    ) -> AsyncIterator[Recommendation]:
        """One slate item by item, read in pages as far as is asked for."""
        async for page in self.pages(user_id, **options):
            for row in page["recommendations"]:
                yield row

    async def feedback(self, user_id: Id, item_id: Id, event_type: str) -> Stored:
        """Record a click, view, watch, like or dislike."""
        return await self._send(calls.feedback(user_id, item_id, event_type))

    async def why(self, user_id: Id, item_id: Id) -> Told:
        """Why an item is for a user, in prose where the service has somebody to write it."""
        return await self._send(calls.why(user_id, item_id))

    async def similar(self, item_id: Id, limit: int = 10) -> Similar:
        """Items most like one."""
        return await self._send(calls.similar(item_id, limit))

    async def popular(
        self, limit: int = 10, genres: Sequence[str] = (), window: str | None = None
    ) -> list[PopularItem]:
        """What most people watch lately, of any of the genres; window "5m": in five minutes."""
        return await self._send(calls.popular(limit, list(genres), window))

    async def items(self, q: str, limit: int = 10) -> list[Item]:
        """Items whose title contains every word."""
        return await self._send(calls.items(q, limit))

    async def history(self, user_id: Id, limit: int = 100) -> list[HistoryItem]:
        """What is known of a user, newest first."""
        return await self._send(calls.history(user_id, limit))

    async def features(self, user_id: Id) -> Features:
        """A user's last five minutes."""
        return await self._send(calls.features(user_id))

    async def erase(self, user_id: Id) -> Receipt:
        """Erase a user everywhere; the key needs the scope admin. Safe to repeat."""
        return await self._send(calls.erase(user_id))

    async def users(self, limit: int = 20) -> list[Id]:
        """Some users of the bundle."""
        return await self._send(calls.users(limit))

    async def info(self) -> dict[str, Any]:
        """What answers and how it was measured."""
        return await self._send(calls.plain("/info"))

    async def ready(self) -> dict[str, Any]:
        """The version that answers, and what is away. Raises Refused while there is none."""
        return await self._send(calls.plain("/ready"))

    async def metrics(self) -> str:
        """The counters of one replica in Prometheus' text format."""
        return await self._send(calls.metrics())

    async def _send(self, call: Call[T]) -> T:
        arguments, failed = _arguments(call), 0
        while True:
            met = await self._try(arguments)
            failed += 1
            wait_s = None if _is_answer(met) else _wait_s(call, self._retry, failed, met)
            if wait_s is None:
                return call.read(_response(met, failed))
            await asyncio.sleep(wait_s)

    async def _try(self, arguments: dict[str, Any]) -> httpx.Response | httpx.RequestError:
        try:
            return await self._http.request(**arguments)
        except httpx.RequestError as error:
            return error


def _is_answer(met: httpx.Response | httpx.RequestError) -> bool:
    return isinstance(met, httpx.Response) and not met.is_error


def _response(met: httpx.Response | httpx.RequestError, tries: int) -> httpx.Response:
    if isinstance(met, httpx.Response):
        return met
    reason = str(met) or type(met).__name__
    raise Unreachable(f"no answer after {tries} tries: {reason}") from met
