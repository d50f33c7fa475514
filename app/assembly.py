"""Puts an ingress together from settings: stores, pipeline, service. No Ray."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from app import logs
from app.adapters.event_log import EventLog
from app.adapters.indexes import open_index
from app.adapters.none import (
    NoErasures,
    NoSlateCache,
    NoUserState,
    NoWindowCounts,
    never_loaded,
)
from app.adapters.openai_writer import OpenAIWriter
from app.adapters.redis_cache import RedisSlateCache
from app.adapters.redis_erasures import RedisErasures
from app.adapters.redis_features import RedisFeatures
from app.adapters.redis_rates import RedisRateCounts
from app.adapters.redis_state import RedisUserState
from app.adapters.redis_stream import RedisEventStream
from app.adapters.redis_windows import RedisWindowCounts
from app.adapters.store import bundle_store
from app.breaker import Breaker
from app.erasing import Eraser
from app.guarded import GuardedRetriever, GuardedSlateCache, GuardedUserState
from app.limits import RateLimiter
from app.live import Live
from app.metrics import Metrics
from app.models import Model, Versions
from app.moment import MomentRanker
from app.pages import Pages
from app.pipeline import Limits, Recommender
from app.ports import (
    Embedder,
    Erasures,
    Ranker,
    RateCounts,
    Retriever,
    SlateCache,
    UserState,
    WindowCounts,
)
from app.promotion import Promotion, Stages
from app.prose import Prose
from app.recall import RecallRetriever
from app.rules_json import RuleBook, read_rules
from app.service import Service
from app.settings import Settings
from app.write_behind import WriteBehindCache
from training.model.bundle import Bundle

if TYPE_CHECKING:
    from app.adapters.local_stages import LocalStages

_log = logs.get("assembly")

_ERASE_TIMEOUT_S = 10.0  # for one page of the stream; nobody else waits for it


class AllStages(Embedder, Retriever, Ranker, Stages, Protocol):
    """One object that is every stage, near or far."""


@dataclass(frozen=True)
class Ingress:
    """What an ingress replica holds."""

    service: Service
    promotion: Promotion
    live: Live
    limiter: RateLimiter


def assemble(settings: Settings, stages: AllStages) -> Ingress:
    """Wire an ingress over the stages. Opens no connection yet."""
    metrics = Metrics()
    store = bundle_store(settings)
    book = read_rules(settings.rules)
    models: Versions[Model] = Versions(store.locate, lambda bundle: _model(bundle, book))
    promotion = Promotion(store, models, stages, metrics, poll_s=settings.poll_s)
    state = GuardedUserState(_user_state(settings), _breaker("user_state", settings, metrics))
    cache = GuardedSlateCache(_slate_cache(settings), _breaker("cache", settings, metrics))
    slates = WriteBehindCache(cache, metrics, timeout_s=settings.stage_timeout_ms / 1000)
    erasures = _erasures(settings)
    live = Live(
        _window_counts(settings),
        erasures,
        metrics,
        loaded_at=_loaded_at(settings),
        every_s=settings.poll_s,
    )
    recommender = Recommender(
        current=promotion.current,
        state=state,
        cache=slates,
        embedder=stages,
        retriever=_retriever(settings, stages, promotion, metrics),
        ranker=MomentRanker(
            stages,
            live,
            promotion.current,
            trend_weight=settings.trend_weight,
            session_weight=settings.session_weight,
        ),
        metrics=metrics,
        limits=Limits(settings.candidates, settings.stage_timeout_ms / 1000),
        is_erased=live.is_erased,
    )
    service = Service(
        current=promotion.current,
        recommender=recommender,
        state=state,
        metrics=metrics,
        max_batch=settings.max_batch,
        batches_in_flight=settings.batches_in_flight,
        live=live,
        eraser=_eraser(settings, erasures, slates),
        max_wait_s=settings.max_wait_ms / 1000,
        pages=Pages(cache) if settings.cache_url else None,
        prose=_prose(settings, metrics),
        rules=book.rules,
        paged_items=settings.paged_items,
    )
    return Ingress(service, promotion, live, RateLimiter(_rate_counts(settings)))


def local_stages(settings: Settings) -> LocalStages:
    """The stages inside this process."""
    from app.adapters.local_stages import LocalStages  # torch and LightGBM: only where they run

    return LocalStages(
        bundle_store(settings).locate,
        lambda bundle: open_index(settings, bundle),
        rank_depth=settings.rank_depth,
    )


def _model(bundle: Bundle, book: RuleBook) -> Model:
    model = Model.load(bundle, book.sentences)
    idle = model.directed.rules.without_effect(book.rules) if book.rules is not None else []
    if idle:
        _log.warning("rules without effect", version=bundle.version, rules="; ".join(idle))
    return model


def _prose(settings: Settings, metrics: Metrics) -> Prose | None:
    if not settings.prose_url:
        return None
    timeout_s = settings.prose_timeout_ms / 1000
    writer = OpenAIWriter(
        settings.prose_url,
        model=settings.prose_model,
        api_key=settings.prose_api_key,
        timeout_s=timeout_s,
    )
    return Prose(writer, metrics, timeout_s=timeout_s)


def _breaker(name: str, settings: Settings, metrics: Metrics) -> Breaker:
    return Breaker(
        name,
        metrics.breaker,
        failures=settings.breaker_failures,
        open_s=settings.breaker_open_ms / 1000,
    )


def _retriever(
    settings: Settings, stages: Retriever, promotion: Promotion, metrics: Metrics
) -> Retriever:
    guarded = GuardedRetriever(stages, _breaker("retrieve", settings, metrics))
    if not settings.recall_share:
        return guarded
    return RecallRetriever(guarded, promotion.current, metrics, share=settings.recall_share)


def _window_counts(settings: Settings) -> WindowCounts:
    if not settings.redis_url:
        return NoWindowCounts()
    return RedisWindowCounts(settings.redis_url, timeout_s=settings.redis_timeout_ms / 1000)


def _loaded_at(settings: Settings) -> Callable[[], Awaitable[int | None]]:
    if not settings.redis_url:
        return never_loaded
    timeout_s = settings.redis_timeout_ms / 1000
    return RedisFeatures(settings.redis_url, timeout_s=timeout_s).loaded_at


def _erasures(settings: Settings) -> Erasures:
    if not settings.redis_url:
        return NoErasures()
    return RedisErasures(settings.redis_url, timeout_s=settings.redis_timeout_ms / 1000)


def _eraser(settings: Settings, erasures: Erasures, cache: SlateCache) -> Eraser | None:
    """None without user state: there is nobody to erase, and nowhere to note it."""
    if not settings.redis_url:
        return None
    stream = RedisEventStream(settings.redis_url, timeout_s=_ERASE_TIMEOUT_S)
    log = EventLog.open(settings.event_log) if settings.event_log else None
    return Eraser(erasures, stream, cache, log)


def _user_state(settings: Settings) -> UserState:
    if not settings.redis_url:
        return NoUserState()
    return RedisUserState(
        settings.redis_url,
        timeout_s=settings.redis_timeout_ms / 1000,
        max_user_bytes=settings.max_user_bytes,
    )


def _rate_counts(settings: Settings) -> RateCounts | None:
    if not settings.cache_url:
        return None
    return RedisRateCounts(settings.cache_url, timeout_s=settings.redis_timeout_ms / 1000)


def _slate_cache(settings: Settings) -> SlateCache:
    if not settings.cache_url:
        return NoSlateCache()
    return RedisSlateCache(
        settings.cache_url,
        timeout_s=settings.redis_timeout_ms / 1000,
        ttl_s=settings.cache_ttl_s,
    )
