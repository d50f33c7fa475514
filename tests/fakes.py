"""In-memory stand-ins for the ports; each passes the contract tests of the real adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.domain import Event, EventType, ItemId, UserEvents, UserId
from app.errors import DependencyUnavailable


class FakeUserState:
    """The UserState port in a dictionary; `away = True` makes it fail."""

    def __init__(self, kept_events: int = 2000) -> None:
        self.stream: list[Event] = []
        self.away = False
        self._kept_events = kept_events
        self._events: dict[str, list[tuple[ItemId, EventType]]] = {}
        self._revisions: dict[str, str] = {}

    async def read(self, user_ids: Sequence[UserId]) -> list[UserEvents]:
        self._check()
        return [
            UserEvents(
                self._revisions.get(str(user), "0"), tuple(self._events.get(str(user), ()))
            )
            for user in user_ids
        ]

    async def append(self, event: Event) -> str:
        self._check()
        self.stream.append(event)
        events = self._events.setdefault(str(event.user_id), [])
        events.append((str(event.item_id), event.event_type))
        del events[: -self._kept_events]
        revision = f"{len(self.stream)}-0"
        self._revisions[str(event.user_id)] = revision
        return revision

    async def ping(self) -> None:
        self._check()

    def _check(self) -> None:
        if self.away:
            raise DependencyUnavailable("user state: away")


class FakeSlateCache:
    """The SlateCache port in a dictionary; `away = True` makes it fail."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.away = False

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        self._check()
        return [self.values.get(key) for key in keys]

    async def put(self, slates: Mapping[str, bytes]) -> None:
        self._check()
        self.values.update(slates)

    def _check(self) -> None:
        if self.away:
            raise DependencyUnavailable("cache: away")
