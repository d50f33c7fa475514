"""Puts an ingress together from settings: stores, pipeline, service. No Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from app.adapters.indexes import open_index
from app.adapters.none import NoSlateCache, NoUserState
from app.adapters.redis_cache import RedisSlateCache
from app.adapters.redis_state import RedisUserState
from app.adapters.store import bundle_store
from app.metrics import Metrics
from app.models import Model, Versions
from app.pipeline import Limits, Recommender
from app.ports import Embedder, Ranker, Retriever, SlateCache, UserState
from app.promotion import Promotion, Stages
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


def assemble(settings: Settings, stages: AllStages) -> Ingress:
    """Wire an ingress over the stages. Opens no connection yet."""
    metrics = Metrics()
    store = bundle_store(settings)
    models: Versions[Model] = Versions(store.locate, Model.load)
    promotion = Promotion(store, models, stages, metrics, poll_s=settings.poll_s)
    state = _user_state(settings)
    recommender = Recommender(
        current=promotion.current,
        state=state,
        cache=_slate_cache(settings),
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
        max_wait_s=settings.max_wait_ms / 1000,
    )
    return Ingress(service, promotion)


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


def _slate_cache(settings: Settings) -> SlateCache:
    if not settings.cache_url:
        return NoSlateCache()
    return RedisSlateCache(
        settings.cache_url,
        timeout_s=settings.redis_timeout_ms / 1000,
        ttl_s=settings.cache_ttl_s,
    )
