"""A steady stream of requests that remembers every answer: slates, and feedback in between."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import aiohttp

_TIMEOUT_S = 30.0
_EVERY_NTH_IS_FEEDBACK = 20
_REFUSALS = (429, 503)
LIMIT = 10

Id = int | str


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's fate. Times are seconds of time.monotonic()."""

    sent_at: float
    took_s: float
    status: int | None
    """HTTP status; None when the connection broke or nothing came."""
    body: dict[str, Any]
    user_id: Id
    item_id: Id | None = None
    """Of feedback; None for a slate."""
    problem: str = ""

    @property
    def is_refused(self) -> bool:
        """Told to come back later, in the way that clients understand."""
        return self.status in _REFUSALS and bool(self.body.get("retry_after"))

    @property
    def is_error(self) -> bool:
        """Neither answered nor properly refused."""
        return self.status != 200 and not self.is_refused

    @property
    def is_degraded(self) -> bool:
        """Made without a part of the service."""
        return bool(self.body.get("degraded"))


@dataclass
class Log:
    """Every answer of one load, in the order in which they came."""

    answers: list[Answer] = field(default_factory=list)

    @property
    def slates(self) -> list[Answer]:
        """The answers to requests for slates."""
        return [answer for answer in self.answers if answer.item_id is None]

    @property
    def feedback(self) -> list[Answer]:
        """The answers to feedback."""
        return [answer for answer in self.answers if answer.item_id is not None]


class Load:
    """Requests in an open loop: they are sent when they are due, whatever became of the others."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        users: Sequence[Id],
        writers: Sequence[Id],
        items: Sequence[Id],
    ) -> None:
        """users: ask for slates and give no feedback, so that their slates stay the same.
        writers: give feedback, one item after the other.
        """
        self._session = session
        self._url = url
        self._users = users
        self._writers = writers
        self._items = items
        self._events = count()

    async def slate(self, number: int, log: Log, *, limit: int = LIMIT, fresh: bool) -> None:
        """Ask for the slate of the number-th user."""
        user = self._users[number % len(self._users)]
        body = {"user_id": user, "num_recommendations": limit}
        headers = {"Cache-Control": "no-cache"} if fresh else {}
        log.answers.append(await self._post("/recommend", body, headers, user, None))

    async def event(self, log: Log) -> None:
        """Give feedback that was not given before."""
        number = next(self._events)
        user = self._writers[number % len(self._writers)]
        item = self._items[number // len(self._writers) % len(self._items)]
        body = {"user_id": user, "item_id": item, "event_type": "view"}
        log.answers.append(await self._post("/feedback", body, {}, user, item))

    @asynccontextmanager
    async def steady(self, per_s: float) -> AsyncIterator[Log]:
        """Slates, every other one computed afresh, and feedback; all answers are there after it."""
        log = Log()
        sent: set[asyncio.Task[None]] = set()
        sending = asyncio.create_task(self._send(per_s, log, sent))
        try:
            yield log
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await asyncio.gather(*sent)

    async def _send(self, per_s: float, log: Log, sent: set[asyncio.Task[None]]) -> None:
        start = time.monotonic()
        for number in count():
            await asyncio.sleep(max(0.0, start + number / per_s - time.monotonic()))
            if number % _EVERY_NTH_IS_FEEDBACK == 0:
                task = asyncio.create_task(self.event(log))
            else:
                task = asyncio.create_task(self.slate(number, log, fresh=number % 2 == 0))
            sent.add(task)

    async def _post(
        self, path: str, body: dict[str, Any], headers: dict[str, str], user: Id, item: Id | None
    ) -> Answer:
        sent_at = time.monotonic()
        status, content, problem = None, {}, ""
        try:
            async with self._session.post(
                self._url + path,
                json=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
            ) as response:
                raw = await response.read()
                status = response.status
                content = json.loads(raw) | {"retry_after": response.headers.get("retry-after")}
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            status, problem = None, repr(error)
        except ValueError:
            problem = raw[:100].decode(errors="replace")
        if status != 200:
            problem = problem or str(content)
        return Answer(sent_at, time.monotonic() - sent_at, status, content, user, item, problem)
