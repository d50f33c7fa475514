"""What the service counts, in Prometheus' terms. One place, so that names stay true."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.3, 0.5, 1.0, 2.5)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of the exposition."""

    name: str
    help: str
    labels: dict[str, str]
    value: float


class Metrics:
    """The registry of one ingress replica."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "marquee_requests_total",
            "Requests answered.",
            ["route", "status"],
            registry=self._registry,
        )
        self._latency = Histogram(
            "marquee_request_seconds",
            "Time from the request's first byte read to the answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._stage = Histogram(
            "marquee_stage_seconds",
            "Time a batch spends in one stage, hop included.",
            ["stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batch = Histogram(
            "marquee_batch_size",
            "Requests that walked the pipeline together.",
            buckets=_SIZES,
            registry=self._registry,
        )
        self._lookups = Counter(
            "marquee_cache_lookups_total",
            "Slates looked up in the cache.",
            ["result"],
            registry=self._registry,
        )
        self._candidates = Counter(
            "marquee_candidates_total",
            "Candidate slots ranked.",
            registry=self._registry,
        )
        self._degraded = Counter(
            "marquee_degraded_total",
            "Batches that did without a dependency.",
            ["dependency", "error"],
            registry=self._registry,
        )
        self._feedback = Counter(
            "marquee_feedback_total",
            "Events acknowledged.",
            ["event_type"],
            registry=self._registry,
        )
        self._version = Gauge(
            "marquee_model_version",
            "1 for the version that answers.",
            ["version"],
            registry=self._registry,
        )

        self._breaker = Gauge(
            "marquee_breaker_state",
            "0 closed, 1 half-open (one probe passes), 2 open (not asked).",
            ["dependency"],
            registry=self._registry,
        )
        self._feature_age = Gauge(
            "marquee_feature_age_seconds",
            "Age of the online features: how long ago what they come from was read or made.",
            ["feature"],
            registry=self._registry,
        )
        self._recall = Histogram(
            "marquee_ann_recall",
            "Recall@100 of sampled searches against the exact ones.",
            buckets=(0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0),
            registry=self._registry,
        )
        self._erasures = Counter(
            "marquee_erasures_total",
            "Users erased.",
            registry=self._registry,
        )
        self._by_route: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        known = self._by_route.get((route, status))
        if known is None:  # looking children up by their labels costs more than counting
            known = self._requests.labels(route, str(status)), self._latency.labels(route)
            self._by_route[route, status] = known
        known[0].inc()
        known[1].observe(seconds)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is inside as one stage of a batch."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._stage.labels(name).observe(time.perf_counter() - start)

    def batch(self, size: int) -> None:
        """Record the size of a batch."""
        self._batch.observe(size)

    def cache(self, *, hits: int, lookups: int) -> None:
        """Count cache lookups of a batch."""
        self._lookups.labels("hit").inc(hits)
        self._lookups.labels("miss").inc(lookups - hits)

    def candidates(self, users: int, depth: int) -> None:
        """Count the candidates of a batch."""
        self._candidates.inc(users * depth)

    def degraded(self, dependency: str, error: Exception) -> None:
        """Count a batch that did without a dependency."""
        self._degraded.labels(dependency, type(error).__name__).inc()

    def feedback(self, event_type: str) -> None:
        """Count an acknowledged event."""
        self._feedback.labels(event_type).inc()

    def breaker(self, dependency: str, state: int) -> None:
        """Name the state of a breaker."""
        self._breaker.labels(dependency).set(state)

    def feature_age(self, feature: str, seconds: float) -> None:
        """Tell how old a feature's source is."""
        self._feature_age.labels(feature).set(seconds)

    def recall(self, recall: float) -> None:
        """Record the recall of one sampled search."""
        self._recall.observe(recall)

    def erasure(self) -> None:
        """Count an erased user."""
        self._erasures.inc()

    def version(self, version: str) -> None:
        """Name the version that answers."""
        self._version.clear()
        self._version.labels(version).set(1)

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def samples(self) -> list[Sample]:
        """The same as numbers, without when each was created."""
        return [
            Sample(sample.name, family.documentation, sample.labels, sample.value)
            for family in self._registry.collect()
            for sample in family.samples
            if not sample.name.endswith("_created")
        ]
