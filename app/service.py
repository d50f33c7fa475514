"""Everything the API offers, without HTTP: the recommender plus look-ups in the current bundle."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.coalesce import Coalescer
from app.domain import (
    Erasure,
    Event,
    EventType,
    ItemId,
    Query,
    SearchFilter,
    Slate,
    UserEvents,
    UserId,
)
from app.erasing import Eraser
from app.errors import DependencyUnavailable, NotFound
from app.live import Live
from app.metrics import Metrics
from app.models import Model
from app.pages import Pages, SlatePage
from app.pipeline import Miss, Recommender
from app.ports import UserState
from app.prose import Account, Prose
from app.rules import Rules
from app.stages.history import batch_histories, known
from app.stages.user_features import named, ranker_inputs
from app.windows import ItemWindow

_NO_STATE = ("user_state",)  # what is away when the online state is
_SOURCES = 3  # of the user's items, to say why another is for them


@dataclass(frozen=True, slots=True)
class Page:
    """Rendered items and the version they come from; `degraded` as in Past."""

    items: list[dict[str, Any]]
    version: str
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of a user, newest first; `degraded` names what had to be done without."""

    rows: list[dict[str, Any]]
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UserWindow:
    """A user's last five minutes: events by type and in all, and the genres' shares in what the
    user met and did not dislike.

    inputs: what the ranker reads of the user, None when neither the online store nor the bundle
    knows them. degraded: as in Past."""

    clicks: int
    views: int
    events: int
    genres: dict[str, float]
    inputs: dict[str, float | None] | None
    degraded: tuple[str, ...] = ()


class Service:
    """One ingress replica's answers."""

    def __init__(
        self,
        *,
        current: Callable[[], Model],
        recommender: Recommender,
        state: UserState,
        metrics: Metrics,
        max_batch: int,
        batches_in_flight: int,
        live: Live,
        eraser: Eraser | None,
        max_wait_s: float,
        pages: Pages | None = None,
        prose: Prose | None = None,
        rules: Rules | None = None,
        paged_items: int = 500,
    ) -> None:
        """eraser: None without user state. pages: None when there is nowhere to keep a slate for
        later. prose: None: templates only. rules: of every request. paged_items: length of a slate
        that is read in pages.
        """
        self._current = current
        self._live = live
        self._eraser = eraser
        self._recommender = recommender
        self._state = state
        self.metrics = metrics
        self.rules = rules
        self._pages = pages
        self._prose = prose
        self._paged_items = paged_items
        self._look_ups = Coalescer(
            recommender.look_up,
            max_batch=max_batch,
            max_in_flight=1,
            max_wait_s=max_wait_s,
            went_without=lambda found: bool(found.degraded),
        )
        self._computations = Coalescer(
            self._compute,
            max_batch=max_batch,
            max_in_flight=batches_in_flight,
            max_wait_s=max_wait_s,
            same=Miss.identity,
        )

    async def recommend(self, query: Query) -> Slate:
        """A slate; goes with whoever asks at the same time, and from the cache without those
        whose slates must be computed.

        Raises Overloaded when the wait would be too long.
        """
        self._check_genres(query.genres, "filters.genres")
        if not query.is_cached:
            self.check_load(False)  # a refusal need not wait for the look-up
        came_at = time.monotonic()
        found = await self._look_ups.submit(query)
        if isinstance(found, Slate):
            return found
        return await self._computations.submit(found, came_at)

    def check_load(self, read_cache: bool) -> None:
        """Raises Overloaded where `recommend` would at once, for a query that may read the cache
        or may not."""
        (self._look_ups if read_cache else self._computations).check()

    async def first_page(self, query: Query) -> SlatePage:
        """The beginning of a slate that `next_page` reads on in."""
        whole = replace(query, limit=max(query.limit, self._paged_items))
        slate = await self.recommend(whole)
        return await self._slates().first(query.user_id, slate, query.limit)

    async def next_page(self, user_id: UserId, cursor: str, size: int | None) -> SlatePage:
        """The page that a cursor stands for; size: None for the first page's."""
        return await self._slates().next(user_id, cursor, size)

    def _slates(self) -> Pages:
        if self._pages is None:
            raise DependencyUnavailable("pages need a cache; REDIS_URL is not set")
        return self._pages

    def check_rules(self, asked: Rules) -> None:
        """Raises NotFound for genres, caps and pins that the catalogue does not have."""
        self._current().directed.rules.check(asked)

    async def _compute(self, misses: Sequence[Miss]) -> list[Slate]:
        self.metrics.batch(len(misses))
        return await self._recommender.compute(misses)

    async def close(self) -> None:
        """Finish what goes on behind the answers. Call it when there are no more requests."""
        await self._recommender.close()

    async def feedback(
        self, user_id: UserId, item_id: ItemId, event_type: EventType
    ) -> tuple[Event, str]:
        """Record an event; returns it with the user's new revision once it is stored.

        Raises NotFound for an item the catalogue does not have, DependencyUnavailable when the
        event could not be stored: then it counts as not given.
        """
        model = self._current()
        known_id = model.bundle.items.ids[self._item(model, item_id, "item_id")]
        event = Event(user_id, known_id, event_type, time.time_ns() // 1_000_000)
        revision = await self._state.append(event)
        self.metrics.feedback(event_type.value)
        return event, revision

    def similar(self, item_id: ItemId, limit: int) -> tuple[dict[str, Any], Page]:
        """The item itself and those most like it: by shared users, then by their vectors."""
        model = self._current()
        item = self._item(model, item_id, "item_id")
        items, similarity = model.explain.neighbours(item, limit)
        rows = [
            model.render.item(i) | {"score": round(float(s), 4)}
            for i, s in zip(items.tolist(), similarity, strict=True)
        ]
        return model.render.item(item), Page(rows, model.version)

    def popular(self, limit: int, genres: tuple[str, ...]) -> Page:
        """What most people watch lately."""
        self._check_genres(genres, "genre")
        model = self._current()
        items, scores = model.popular.search(SearchFilter(genres=genres), limit)
        rows = [
            model.render.item(i) | {"score": round(float(s), 4)}
            for i, s in zip(items.tolist(), scores, strict=True)
        ]
        return Page(rows, model.version)

    def popular_now(self, limit: int, genres: tuple[str, ...]) -> Page:
        """What gathered most events in the last five minutes; their number is the score.

        `degraded` says "user_state" when they are old, for the counts could not be read lately.
        """
        self._check_genres(genres, "genre")
        model = self._current()
        allowed = model.popular.allowed(SearchFilter(genres=genres))
        found = [
            (window, item)
            for item_id, window in self._live.windows.items()
            if (item := model.bundle.item_index(item_id)) >= 0 and allowed[item]
        ]
        found.sort(key=lambda row: (-row[0].wanted, row[1]))
        rows = [
            model.render.item(item) | {"score": float(window.wanted), "window": _counts(window)}
            for window, item in found[:limit]
        ]
        return Page(rows, model.version, () if self._live.is_current else _NO_STATE)

    async def erase(self, user_id: UserId) -> Erasure:
        """Erase a user from everywhere; returns the receipt.

        Raises DependencyUnavailable when a place could not be reached: ask again.
        """
        if self._eraser is None:
            raise DependencyUnavailable("user state: REDIS_URL is not set")
        try:
            receipt = await self._eraser.erase(user_id)
        except OSError as error:
            raise DependencyUnavailable(f"event log: {error}") from error
        self.metrics.erasure()
        return receipt

    async def window(self, user_id: UserId) -> UserWindow:
        """A user's last five minutes; without the online state none, and the bundle's inputs."""
        state, degraded = await self._events_of(user_id)
        bundle = self._current().bundle
        newest = state.events[len(state.events) - state.recent :]
        kinds = [kind for _, kind in newest]
        user = known(bundle, Query(user_id), state)
        met = user.history[len(user.history) - user.recent :]
        shares = bundle.genre_matrix[met].sum(axis=0)
        genres = {
            name: round(float(share / shares.sum()), 4)
            for name, share in zip(bundle.manifest.genres, shares, strict=True)
            if share > 0
        }
        return UserWindow(
            kinds.count(EventType.CLICK),
            kinds.count(EventType.VIEW),
            len(kinds),
            genres,
            named(ranker_inputs(batch_histories([user]), bundle.user_features)[0]),
            degraded,
        )

    def search_items(self, text: str, limit: int) -> Page:
        """Items whose title contains the words, most popular first; an id finds its item."""
        model = self._current()
        found = model.titles.search(text, limit)
        exact = model.bundle.item_index(text)
        if exact >= 0:
            found = [exact, *(i for i in found if i != exact)][:limit]
        return Page([model.render.item(i) for i in found], model.version)

    async def why(self, user_id: UserId, item_id: ItemId) -> Account:
        """Why an item is for a user: in prose where there is a writer, by template otherwise.

        Raises NotFound for an item the catalogue does not have.
        """
        model = self._current()
        item = self._item(model, item_id, "item_id")
        state, degraded = await self._events_of(user_id)
        user = known(model.bundle, Query(user_id), state)
        nearest, _ = model.explain.nearest(item, user.history, _SOURCES)
        sources = nearest.tolist()
        looked_at = [source in user.looked_at for source in sources]
        account = Account(
            item=model.render.item(item),
            because=[model.render.item(source) for source in sources],
            done=[model.render.done(only) for only in looked_at],
            text=model.render.told(item, sources, looked_at),
            version=model.version,
            degraded=degraded,
        )
        if self._prose is None:
            return account
        text, is_prose = await self._prose.over(account)
        if not is_prose:
            return replace(account, degraded=(*degraded, "prose"))
        return replace(account, text=text, written_by="model")

    async def history(self, user_id: UserId, limit: int) -> Past:
        """What is known of the user; nothing for an unknown user.

        `event_type` is null for what came with the bundle. Without the online state the
        bundle's part is returned.
        """
        model = self._current()
        state, degraded = await self._events_of(user_id)
        rows: list[dict[str, Any]] = []
        for item_id, event_type in reversed(state.events):
            item = model.bundle.item_index(item_id)
            if item >= 0:
                rows.append(model.render.item(item) | {"event_type": event_type.value})
        online = {model.bundle.item_index(item_id) for item_id, _ in state.events}
        past = known(model.bundle, Query(user_id), _without_feedback(state)).history
        rows += [
            model.render.item(item) | {"event_type": None}
            for item in past[::-1].tolist()
            if item not in online
        ]
        return Past(rows[:limit], degraded)

    def users(self, limit: int) -> list[UserId]:
        """Some users of the bundle, to try the service with."""
        ids = self._current().bundle.user_ids
        step = max(1, len(ids) // limit)
        chosen = ids[::step][:limit].tolist()
        users = [user.decode() if isinstance(user, bytes) else user for user in chosen]
        return [user for user in users if not self._live.is_erased(user)]

    def info(self) -> dict[str, Any]:
        """What answers: version, entity, catalogue and how the model was measured."""
        manifest = self._current().bundle.manifest
        return {
            "model_version": manifest.version,
            "created_at": manifest.created_at,
            "entity": manifest.entity.name,
            "id_field": manifest.entity.id_field,
            "n_items": manifest.n_items,
            "n_users": manifest.n_users,
            "dimension": manifest.dimension,
            "genres": manifest.genres,
            "split": manifest.split.model_dump(),
            "metrics": manifest.metrics,
        }

    async def dependencies(self) -> dict[str, str]:
        """State of what the service can do without: "ok" or what is wrong."""
        try:
            await self._state.ping()
        except DependencyUnavailable as error:
            return {"user_state": error.message}
        return {"user_state": "ok"}

    def version(self) -> str:
        """The version that answers. Raises ModelNotReady."""
        return self._current().version

    async def _events_of(self, user_id: UserId) -> tuple[UserEvents, tuple[str, ...]]:
        """What the online state knows of a user, and what had to be done without."""
        try:
            (record,) = await self._state.read([user_id])
            return record.parsed(), ()
        except DependencyUnavailable:
            return UserEvents(erased=self._live.is_erased(user_id)), _NO_STATE

    def _item(self, model: Model, item_id: ItemId, field: str) -> int:
        item = model.bundle.item_index(item_id)
        if item < 0:
            name = model.bundle.manifest.entity.name
            raise NotFound(f"{name} {item_id!r} is not in the catalogue", field=field)
        return item

    def _check_genres(self, genres: Sequence[str], field: str) -> None:
        if not genres:
            return
        have = self._current().bundle.manifest.genres
        for genre in genres:
            if genre not in have:
                raise NotFound(
                    f"unknown genre {genre!r}; the catalogue has {', '.join(have) or 'none'}",
                    field=field,
                )


def _without_feedback(state: UserEvents) -> UserEvents:
    return UserEvents(erased=state.erased, stored=state.stored)


def _counts(window: ItemWindow) -> dict[str, float]:
    """An item's window as it is told."""
    return {"views": window.views, "clicks": window.clicks, "velocity": window.velocity}
