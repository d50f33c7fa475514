"""Carries the service's metrics to Ray's agent on the same node.

A scrape of `/metrics` reaches one replica, whichever the proxy chose. Ray's agent exports what
all replicas of its node report, each under its own replica's labels, so Prometheus scrapes that.
Every sample goes as a gauge: cumulative counts stay cumulative, and `rate` does not ask for types.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ray.serve import metrics as serve_metrics

from app.metrics import Metrics, Sample


class RayMetrics:
    """Repeats a registry's samples as Ray gauges."""

    def __init__(self, metrics: Metrics, *, every_s: float = 5.0) -> None:
        """every_s: time between copies; Prometheus usually scrapes less often."""
        self._metrics = metrics
        self._every_s = every_s
        self._gauges: dict[str, Any] = {}
        self._seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()

    async def follow(self) -> None:
        """Copy again and again, until cancelled."""
        while True:
            self.copy()
            await asyncio.sleep(self._every_s)

    def copy(self) -> None:
        """Copy once. A sample that is gone, such as the version before, becomes 0."""
        current = {(s.name, tuple(sorted(s.labels.items()))): s for s in self._metrics.samples()}
        for sample in current.values():
            self._gauge(sample).set(sample.value, tags=sample.labels)
        for name, labels in self._seen - set(current):
            self._gauges[name].set(0, tags=dict(labels))
        self._seen |= set(current)

    def _gauge(self, sample: Sample) -> Any:
        if sample.name not in self._gauges:
            tag_keys: Any = tuple(sample.labels)  # Ray's annotation knows tuples of one only
            self._gauges[sample.name] = serve_metrics.Gauge(
                sample.name, description=sample.help, tag_keys=tag_keys
            )
        return self._gauges[sample.name]
