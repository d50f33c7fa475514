"""What Prometheus scrapes from Ray's agent is what the replica counted."""

import pytest

from app.deployments import ray_metrics
from app.deployments.ray_metrics import RayMetrics
from app.metrics import Metrics


class FakeGauge:
    def __init__(self, name, *, description, tag_keys):
        assert description
        self.tag_keys = set(tag_keys)
        self.values = {}

    def set(self, value, *, tags):
        assert set(tags) == self.tag_keys
        self.values[tuple(sorted(tags.items()))] = value


@pytest.fixture
def gauges(monkeypatch):
    made = {}

    def gauge(name, **options):
        made[name] = FakeGauge(name, **options)
        return made[name]

    monkeypatch.setattr(ray_metrics.serve_metrics, "Gauge", gauge)
    return made


def test_counters_and_histograms_are_repeated_with_their_labels(gauges):
    metrics = Metrics()
    metrics.request("/recommend", 200, 0.004)
    metrics.request("/recommend", 200, 0.2)
    RayMetrics(metrics).copy()
    labels = (("route", "/recommend"), ("status", "200"))
    assert gauges["marquee_requests_total"].values == {labels: 2.0}
    buckets = gauges["marquee_request_seconds_bucket"].values
    assert buckets[(("le", "0.005"), ("route", "/recommend"))] == 1.0
    assert buckets[(("le", "+Inf"), ("route", "/recommend"))] == 2.0


def test_the_version_before_is_no_longer_reported_as_serving(gauges):
    metrics = Metrics()
    copies = RayMetrics(metrics)
    metrics.version("1")
    copies.copy()
    metrics.version("2")
    copies.copy()
    values = gauges["marquee_model_version"].values
    assert values == {(("version", "1"),): 0, (("version", "2"),): 1.0}
