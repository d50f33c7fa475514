"""The online path on one page: a batch of queries in, a batch of slates out.

    look_up: state -> cache        compute: history -> embed -> retrieve -> rank -> slate -> cache

Two steps, each of its own batches, so that who is in the cache does not wait for who is not.
Plain asyncio over the ports; no Ray, no Redis, no HTTP. The version is chosen once per batch and
everything after it, from the user vector to the slate, belongs to that version. What cannot
be had is done without and named in `Slate.degraded`; nothing a dependency does becomes an error.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
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
from app.ports import Embedder, Ranker, Retriever, UserRecord, UserState
from app.stages.directed import Walk
from app.stages.history import Known, batch_histories, known
from app.write_behind import WriteBehindCache

T = TypeVar("T")

# Of a query, all but whether the cache may be read.
_conditions = attrgetter(*(f.name for f in fields(Query) if f.name != "read_cache"))


@dataclass(frozen=True, slots=True)
class Limits:
    """candidates: retrieved per query, at least. stage_timeout_s: longest wait for one stage."""

    candidates: int = 100
    stage_timeout_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Miss:
    """A query whose slate must be computed.

    record: what is known of its user. key: of its slate in the cache, in `version`.
    degraded: what the look-up had to do without.
    """

    query: Query
    record: UserRecord
    key: str
    version: str
    degraded: tuple[str, ...]

    def identity(self) -> tuple[str, tuple[str, ...]]:
        """Misses of one identity have the same slate: the key says all that it depends on, with
        the revision that the user had after this request came."""
        return self.key, self.degraded


class Recommender:
    """Answers queries from whatever of its dependencies works."""

    def __init__(
        self,
        *,
        current: Callable[[], Model],
        state: UserState,
        cache: WriteBehindCache,
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

    async def look_up(self, queries: Sequence[Query]) -> list[Slate | Miss]:
        """In order, what the cache has, and what to `compute` where it has nothing.

        Raises ModelNotReady before the first bundle.
        """
        model = self._current()
        degraded: list[str] = []
        records = await self._try(
            "user_state", self._state.read([q.user_id for q in queries]), degraded
        )
        # Without the revision a cached slate could ignore feedback: compute instead.
        readable = records is not None
        if records is None:
            records = [UserEvents(erased=self._is_erased(q.user_id)) for q in queries]
        keys = [_cache_key(model, q, r) for q, r in zip(queries, records, strict=True)]
        slates = await self._cached(model, queries, keys, degraded) if readable else {}
        without = tuple(degraded)
        return [
            slates.get(n) or Miss(query, records[n], keys[n], model.version, without)
            for n, query in enumerate(queries)
        ]

    async def compute(self, misses: Sequence[Miss]) -> list[Slate]:
        """One slate per miss, in order, of the version that answers now."""
        model = self._current()
        degraded: list[str] = []
        computed = await self._compute(
            model, [m.query for m in misses], [m.record.parsed() for m in misses], degraded
        )
        slates = [
            replace(slate, degraded=(*miss.degraded, *degraded))
            for miss, slate in zip(misses, computed, strict=True)
        ]
        await self._cache.put(
            {
                miss.key: _pack(slate)
                for miss, slate in zip(misses, slates, strict=True)
                # Where a promotion came in between, the key is of the version before.
                if miss.version == slate.model_version
                and not slate.degraded
                and not miss.query.is_traced
            }
        )
        return slates

    async def close(self) -> None:
        """Return when the slates that were answered are in the cache, or cannot be."""
        await self._cache.written()

    async def _cached(
        self, model: Model, queries: Sequence[Query], keys: Sequence[str], degraded: list[str]
    ) -> dict[int, Slate]:
        """The slates that the cache has, by the place of their query."""
        wanted = [n for n, query in enumerate(queries) if query.is_cached]
        if not wanted:
            return {}
        found = await self._try("cache", self._cache.get([keys[n] for n in wanted]), degraded)
        slates = {
            n: _unpack(packed, model.version)
            for n, packed in zip(wanted, found or (), strict=bool(found))
            if packed is not None
        }
        self._metrics.cache(hits=len(slates), lookups=len(wanted))
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
        return [slates[n] for n in range(len(queries))]

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
        scored = (candidates.scores if scores is None else scores).shape[1]
        self._metrics.candidates(len(users), candidates.items.shape[1])
        plain = [n for n, query in enumerate(queries) if _is_plain(query)]
        slates = _plain_slates(model, queries, users, candidates, plain)
        for n, query in enumerate(queries):
            if n not in slates:
                walk = self._walk(
                    query, users[n], wanted[n], vectors[n], retrieved, candidates, scored, n
                )
                slates[n] = model.directed.personal(walk)
        return [slates[n] for n in range(len(queries))]

    def _walk(
        self,
        query: Query,
        user: Known,
        wanted: SearchFilter,
        vector: Float32s,
        retrieved: Candidates,
        ranked: Candidates,
        scored: int,
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
            scored,
            self._limits.candidates,
        )

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


def _reorder(candidates: Candidates, scores: Float32s) -> Candidates:
    """Those that the ranker scored, best first. The others keep their order behind, and as score
    get one less each than the last that was ranked."""
    depth = scores.shape[1]
    order = np.argsort(-scores, axis=1, kind="stable")
    items = candidates.items.copy()
    items[:, :depth] = np.take_along_axis(items[:, :depth], order, axis=1)
    ranked = np.empty(items.shape, np.float32)
    ranked[:, :depth] = np.take_along_axis(scores, order, axis=1)
    ranked[:, depth:] = ranked[:, depth - 1 : depth] - np.arange(1, items.shape[1] - depth + 1)
    return Candidates(items, ranked)


def _plain_slates(
    model: Model,
    queries: Sequence[Query],
    users: Sequence[Known],
    candidates: Candidates,
    rows: Sequence[int],
) -> dict[int, Slate]:
    """The best candidates of these rows as they are, by row."""
    if not rows:
        return {}
    present = np.count_nonzero(candidates.items >= 0, axis=1).tolist()
    lengths = [min(queries[n].limit, present[n]) for n in rows]
    items = [candidates.items[n, :length] for n, length in zip(rows, lengths, strict=True)]
    scores = [candidates.scores[n, :length] for n, length in zip(rows, lengths, strict=True)]
    because = model.explain.because(
        items, [users[n].history for n in rows], [users[n].looked_at for n in rows]
    )
    bodies = model.render.slates(items, scores, because)
    return {
        n: Slate(body, Strategy.PERSONAL, model.version)
        for n, body in zip(rows, bodies, strict=True)
    }


def _popular_slate(model: Model, query: Query, user: Known, wanted: SearchFilter) -> Slate:
    if not _is_plain(query):
        return model.directed.popular(query, user, wanted)
    items, scores = model.popular.search(wanted, query.limit)
    return Slate(model.render.slate(items, scores, None), Strategy.POPULAR, model.version)


def _cache_key(model: Model, query: Query, record: UserRecord) -> str:
    """All that a slate depends on: user, the user's revision and features, version, request."""
    text = repr((model.version, record.as_of_s, _conditions(query)))
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return f"{user_prefix(query.user_id)}slate:{record.revision}:{digest}"


def _pack(slate: Slate) -> bytes:
    return slate.strategy.encode() + b"\n" + slate.recommendations


def _unpack(packed: bytes, version: str) -> Slate:
    strategy, _, body = packed.partition(b"\n")
    return Slate(body, Strategy(strategy.decode()), version, from_cache=True)
