"""The online path on one page: a batch of queries in, a batch of slates out.

    state -> cache -> history -> embed -> retrieve -> rank -> slate -> cache

Plain asyncio over the ports; no Ray, no Redis, no HTTP. The version is chosen once per batch and
everything after it, from the user vector to the cache key, belongs to that version. What cannot
be had is done without and named in `Slate.degraded`; nothing a dependency does becomes an error.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from app.cache_keys import user_prefix
from app.domain import (
    Candidates,
    Float32s,
    Query,
    SearchFilter,
    Slate,
    Strategy,
    UserEvents,
    UserId,
)
from app.errors import DependencyUnavailable
from app.metrics import Metrics
from app.models import Model
from app.ports import Embedder, Ranker, Retriever, SlateCache, UserState
from app.stages.directed import Walk
from app.stages.history import Known, batch_histories, known

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """candidates: retrieved per query, at least. stage_timeout_s: longest wait for one stage."""

    candidates: int = 100
    stage_timeout_s: float = 1.0


class Recommender:
    """Answers queries from whatever of its dependencies works."""

    def __init__(
        self,
        *,
        current: Callable[[], Model],
        state: UserState,
        cache: SlateCache,
        embedder: Embedder,
        retriever: Retriever,
        ranker: Ranker,
        metrics: Metrics,
        limits: Limits,
        is_erased: Callable[[UserId], bool] = lambda user_id: False,
    ) -> None:
        """is_erased: what is known of a user's erasure while the user state is away."""
        self._current = current
        self._state = state
        self._cache = cache
        self._embedder = embedder
        self._retriever = retriever
        self._ranker = ranker
        self._metrics = metrics
        self._limits = limits
        self._is_erased = is_erased

    async def recommend(self, queries: Sequence[Query]) -> list[Slate]:
        """One slate per query, in order. Raises ModelNotReady before the first bundle."""
        model = self._current()
        degraded: list[str] = []
        states = await self._try(
            "user_state", self._state.read([q.user_id for q in queries]), degraded
        )
        if states is None:
            # Without the revision a cached slate could ignore feedback: compute instead.
            states = [UserEvents(erased=self._is_erased(q.user_id)) for q in queries]
            return await self._compute(model, queries, states, degraded)
        keys = [_cache_key(model, q, s) for q, s in zip(queries, states, strict=True)]
        slates = await self._cached(model, queries, keys, degraded)
        missing = [n for n, slate in enumerate(slates) if slate is None]
        if missing:
            computed = await self._compute(
                model, [queries[n] for n in missing], [states[n] for n in missing], degraded
            )
            for n, slate in zip(missing, computed, strict=True):
                slates[n] = slate
            fresh = {
                keys[n]: slate
                for n, slate in zip(missing, computed, strict=True)
                if not slate.degraded and not queries[n].is_traced
            }
            await self._store(fresh)
        return [slate for slate in slates if slate is not None]

    async def _cached(
        self, model: Model, queries: Sequence[Query], keys: Sequence[str], degraded: list[str]
    ) -> list[Slate | None]:
        slates: list[Slate | None] = [None] * len(queries)
        readable = [n for n, q in enumerate(queries) if q.read_cache and not q.is_traced]
        if not readable:
            return slates
        found = await self._try("cache", self._cache.get([keys[n] for n in readable]), degraded)
        for n, packed in zip(readable, found or (), strict=bool(found)):
            if packed is not None:
                slates[n] = _unpack(packed, model.version)
        self._metrics.cache(hits=sum(s is not None for s in slates), lookups=len(readable))
        return slates

    async def _compute(
        self,
        model: Model,
        queries: Sequence[Query],
        states: Sequence[UserEvents],
        degraded: list[str],
    ) -> list[Slate]:
        users = [known(model.bundle, q, s) for q, s in zip(queries, states, strict=True)]
        wanted = [_search_filter(model, q, u) for q, u in zip(queries, users, strict=True)]
        personal = [n for n, user in enumerate(users) if len(user.history)]
        slates: dict[int, Slate] = {}
        if personal:
            chosen = await self._personal(
                model,
                [queries[n] for n in personal],
                [users[n] for n in personal],
                [wanted[n] for n in personal],
                degraded,
            )
            slates = dict(zip(personal, chosen, strict=True)) if chosen else {}
        for n, query in enumerate(queries):
            if n not in slates:
                slates[n] = _popular_slate(model, query, users[n], wanted[n])
        return [replace(slates[n], degraded=tuple(degraded)) for n in range(len(queries))]

    async def _personal(
        self,
        model: Model,
        queries: Sequence[Query],
        users: Sequence[Known],
        wanted: Sequence[SearchFilter],
        degraded: list[str],
    ) -> list[Slate] | None:
        """Slates from the tower; None when the tower or the index cannot be had."""
        histories = batch_histories(users)
        version = model.version
        vectors = await self._try("embed", self._embedder.embed(version, histories), degraded)
        if vectors is None:
            return None
        depths = [max(self._limits.candidates, query.limit) for query in queries]
        retrieved = await self._try(
            "retrieve", self._retriever.retrieve(version, vectors, wanted, depths), degraded
        )
        if retrieved is None:
            return None
        scores = await self._try("rank", self._ranker.rank(version, histories, retrieved), degraded)
        candidates = retrieved if scores is None else _reorder(retrieved, scores)
        self._metrics.candidates(len(users), candidates.items.shape[1])
        return [
            _personal_slate(model, user, candidates, n, query.limit)
            if _is_plain(query)
            else model.directed.personal(
                _walk(query, user, wanted[n], vectors[n], retrieved, candidates, n)
            )
            for n, (query, user) in enumerate(zip(queries, users, strict=True))
        ]

    async def _store(self, slates: dict[str, Slate]) -> None:
        packed = {key: _pack(slate) for key, slate in slates.items()}
        if packed:  # a slate that could not be stored is still a slate
            await self._try("cache_write", self._cache.put(packed), [])

    async def _try(self, name: str, work: Awaitable[T], degraded: list[str]) -> T | None:
        """The result of `work`, or None with `name` noted when its dependency fails or is late."""
        try:
            with self._metrics.stage(name):
                async with asyncio.timeout(self._limits.stage_timeout_s):
                    return await work
        except (DependencyUnavailable, TimeoutError) as error:
            self._metrics.degraded(name, error)
            degraded.append(name)
            return None


def _search_filter(model: Model, query: Query, user: Known) -> SearchFilter:
    wanted = SearchFilter(
        query.genres, query.min_rating, query.year_from, query.year_to, user.excluded
    )
    return wanted if query.rules is None else model.directed.without_blocked(wanted, query.rules)


def _is_plain(query: Query) -> bool:
    return query.rules is None and not query.is_traced


def _walk(
    query: Query,
    user: Known,
    wanted: SearchFilter,
    vector: Float32s,
    retrieved: Candidates,
    ranked: Candidates,
    row: int,
) -> Walk:
    first, second = retrieved.items[row] >= 0, ranked.items[row] >= 0
    return Walk(
        query,
        user,
        wanted,
        vector,
        retrieved.items[row][first],
        retrieved.scores[row][first],
        ranked.items[row][second],
        ranked.scores[row][second],
    )


def _reorder(candidates: Candidates, scores: np.ndarray) -> Candidates:
    order = np.argsort(-scores, axis=1, kind="stable")
    return Candidates(
        np.take_along_axis(candidates.items, order, axis=1),
        np.take_along_axis(scores, order, axis=1),
    )


def _personal_slate(
    model: Model, user: Known, candidates: Candidates, row: int, limit: int
) -> Slate:
    items = candidates.items[row, :limit]
    items = items[items >= 0]
    scores = candidates.scores[row, : len(items)]
    body = model.render.slate(items, scores, model.explain.because(items, user.history))
    return Slate(body, Strategy.PERSONAL, model.version)


def _popular_slate(model: Model, query: Query, user: Known, wanted: SearchFilter) -> Slate:
    if not _is_plain(query):
        return model.directed.popular(query, user, wanted)
    items, scores = model.popular.search(wanted, query.limit)
    return Slate(model.render.slate(items, scores, None), Strategy.POPULAR, model.version)


def _cache_key(model: Model, query: Query, state: UserEvents) -> str:
    """All that a slate depends on: user, the user's revision and features, version, request."""
    request = replace(query, read_cache=True)
    loaded = state.stored and state.stored.as_of_s
    text = repr((model.version, loaded, request))
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return f"{user_prefix(query.user_id)}slate:{state.revision}:{digest}"


def _pack(slate: Slate) -> bytes:
    return slate.strategy.encode() + b"\n" + slate.recommendations


def _unpack(packed: bytes, version: str) -> Slate:
    strategy, _, body = packed.partition(b"\n")
    return Slate(body, Strategy(strategy.decode()), version, from_cache=True)
