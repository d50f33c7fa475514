"""The service's settings: one frozen object, read from the environment once, at the entry point."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every knob of the online side. Environment: the name in capitals after MARQUEE_."""

    model_config = SettingsConfigDict(env_prefix="MARQUEE_", frozen=True, extra="ignore")

    store: str = Field(description="Where bundles are: a directory or s3://bucket/prefix.")
    cache_dir: Path = Field(
        Path(".marquee/bundles"), description="Where bundles of an S3 store are downloaded to."
    )
    redis_url: str = Field(
        "",
        validation_alias=AliasChoices("redis_url", "REDIS_URL"),
        description="Redis for user state and events; empty: none, and feedback is refused.",
    )
    redis_cache_url: str = Field(
        "",
        validation_alias=AliasChoices("redis_cache_url", "REDIS_CACHE_URL"),
        description="Redis for cached slates; empty: the one for user state.",
    )
    redis_timeout_ms: int = Field(250, gt=0, description="Longest wait for Redis, milliseconds.")
    cache_ttl_s: int = Field(600, gt=0, description="Life of a cached slate, seconds.")
    max_user_bytes: int = Field(
        65_536,
        ge=1024,
        description="Feedback remembered per user, bytes; an event takes about 30.",
    )
    qdrant_url: str = Field(
        "",
        validation_alias=AliasChoices("qdrant_url", "QDRANT_URL"),
        description="Qdrant server (gRPC at its port + 1); empty: the bundle's index.",
    )
    qdrant_api_key: str = Field(
        "",
        validation_alias=AliasChoices("qdrant_api_key", "QDRANT_API_KEY"),
        description="API key of the Qdrant server.",
    )
    qdrant_timeout_ms: int = Field(
        500, gt=0, description="Longest wait for the Qdrant server, milliseconds."
    )
    topology: Literal["graph", "fused"] = Field(
        "graph",
        description="graph: each stage its own deployment; fused: all inside the ingress replica.",
    )
    candidates: int = Field(100, gt=0, description="Items retrieved for the ranker per request.")
    rank_depth: int = Field(
        50, gt=0, description="Candidates the ranker scores; those behind keep their order."
    )
    stage_sockets: str = Field(
        "",
        description="Directory of its owner's alone: stages listen on Unix sockets there and "
        "batches go past Serve, which then has nothing to scale stages by (ADR 37); "
        "empty: by Serve. `marquee serve` makes one.",
    )
    stage_timeout_ms: int = Field(
        1000, gt=0, description="Longest wait for one stage before doing without, milliseconds."
    )
    breaker_failures: int = Field(
        3, gt=0, description="Failures in a row after which a dependency is not asked for a while."
    )
    breaker_open_ms: int = Field(
        1000, gt=0, description="How long it is not asked before one request tries, milliseconds."
    )
    trend_weight: float = Field(
        0.1,
        ge=0,
        description="Most that an item gains by what happens now, in deviations of the scores.",
    )
    session_weight: float = Field(
        0.1,
        ge=0,
        description="Most that genres of the user's last five minutes gain, in the same unit.",
    )
    recall_share: float = Field(
        0.001, ge=0, le=1, description="Share of searches repeated exactly to measure recall."
    )
    event_log: str = Field(
        "",
        description="Event log to erase users from at once; empty: the next export does it.",
    )
    replicas: int = Field(
        1,
        gt=0,
        description="Replicas of each deployment, where Serve's config says nothing else.",
    )
    max_batch: int = Field(64, gt=0, description="Most requests that walk the graph together.")
    batches_in_flight: int = Field(
        2, gt=0, description="Batches that one ingress replica has in the graph at once."
    )
    max_wait_ms: int = Field(
        500,
        gt=0,
        description="Longest time to an answer, milliseconds; who would wait longer gets 429.",
    )
    max_ongoing_requests: int = Field(
        5000,
        gt=0,
        description="Requests one ingress replica holds, where Serve counts them (ADR 35); those "
        "beyond it get 503.",
    )
    replica_cpus: float = Field(
        0.1, ge=0, description="Ray CPUs reserved per replica; small on a laptop, 1 on a cluster."
    )
    poll_s: float = Field(
        2.0, gt=0, description="How often the store is asked for the production version, seconds."
    )
    max_body_bytes: int = Field(
        1_000_000, gt=0, description="Largest request body that is read, bytes."
    )
    max_json_depth: int = Field(
        32, gt=0, description="Most objects and arrays inside each other in a body."
    )
    rate_limit_per_minute: int = Field(
        100,
        ge=0,
        description="Requests a minute for one user, and for one API key; 0: no limit.",
    )
    api_keys: str = Field(
        "",
        description="File of API keys (`marquee keys`), or its content; "
        "empty: everybody may ask everything.",
    )
    audit_log: str = Field(
        "", description="File that admin calls are added to, beside the log; empty: none."
    )
    cors_origins: str = Field(
        "", description="Origins whose pages may call, comma-separated; empty: none but its own."
    )
    rules: str = Field(
        "",
        description="YAML or JSON file of rules for every slate (docs/rules.md), or JSON itself; "
        "empty: none.",
    )
    paged_items: int = Field(
        500, ge=1, le=10_000, description="Longest slate that is read in pages, items."
    )
    prose_url: str = Field(
        "",
        description="OpenAI-compatible endpoint that writes `/users/{id}/why/{item}`, such as "
        "http://llm:8000/v1; empty: templates only.",
    )
    prose_model: str = Field("default", description="Name of the model at that endpoint.")
    prose_api_key: str = Field("", description="API key of that endpoint.")
    prose_timeout_ms: int = Field(
        3000, gt=0, description="Longest wait for prose before the template's, milliseconds."
    )
    body_timeout_ms: int = Field(
        10_000, gt=0, description="Longest wait for a request's whole body, milliseconds."
    )
    access_log: bool = Field(True, description="One log line per request.")

    @property
    def cache_url(self) -> str:
        """Redis for cached slates."""
        return self.redis_cache_url or self.redis_url
