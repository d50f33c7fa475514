"""Puts an ingress together from settings: stores, pipeline, service. No Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from app.adapters.indexes import open_index
from app.adapters.none import NoSlateCache, NoUserState
from app.adapters.redis_cache import RedisSlateCache
from app.adapters.redis_rates import RedisRateCounts
from app.adapters.redis_state import RedisUserState
from app.adapters.store import bundle_store
from app.limits import RateLimiter
from app.metrics import Metrics
from app.models import Model, Versions
from app.pages import Pages
from app.pipeline import Limits, Recommender
from app.ports import Embedder, Ranker, RateCounts, Retriever, SlateCache, UserState
from app.promotion import Promotion, Stages
from app.rules_json import read_rules
from app.service import Service
from app.settings import Settings

if TYPE_CHECKING:
    from app.adapters.local_stages import LocalStages


class AllStages(Embedder, Retriever, Ranker, Stages, Protocol):
    """One object that is every stage, near or far."""


@dataclass(frozen=True)
class Ingress:
    """What an ingress replica holds."""

    service: Service
    promotion: Promotion
    limiter: RateLimiter


def assemble(settings: Settings, stages: AllStages) -> Ingress:
    """Wire an ingress over the stages. Opens no connection yet."""
    metrics = Metrics()
    store = bundle_store(settings)
    book = read_rules(settings.rules)
    models: Versions[Model] = Versions(
        store.locate, lambda bundle: Model.load(bundle, book.sentences)
    )
    promotion = Promotion(store, models, stages, metrics, poll_s=settings.poll_s)
    state = _user_state(settings)
    cache = _slate_cache(settings)
    recommender = Recommender(
        current=promotion.current,
        state=state,
        cache=cache,
        embedder=stages,
        retriever=stages,
        ranker=stages,
        metrics=metrics,
        limits=Limits(settings.candidates, settings.stage_timeout_ms / 1000),
    )
    service = Service(
        current=promotion.current,
        recommender=recommender,
        state=state,
        metrics=metrics,
        max_batch=settings.max_batch,
        batches_in_flight=settings.batches_in_flight,
        pages=Pages(cache) if settings.cache_url else None,
        rules=book.rules,
        paged_items=settings.paged_items,
        max_wait_s=settings.max_wait_ms / 1000,
    )
    return Ingress(service, promotion, RateLimiter(_rate_counts(settings)))


def local_stages(settings: Settings) -> LocalStages:
    """The stages inside this process."""
    from app.adapters.local_stages import LocalStages  # torch and LightGBM: only where they run

    return LocalStages(
        bundle_store(settings).locate,
        lambda bundle: open_index(settings, bundle),
        rank_depth=settings.rank_depth,
    )


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
