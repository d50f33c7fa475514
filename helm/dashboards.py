"""The Grafana dashboards, as data: title, what is asked of Prometheus, unit.

`make k8s` writes one JSON file per dashboard, because Kubernetes' ConfigMaps hold one each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_WIDTH = 12
_HEIGHT = 8
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """One graph. `legend` is Grafana's template of a series' name."""

    title: str
    expr: str
    unit: str
    legend: str = ""


def _quantile(q: float, metric: str, by: str, where: str = "") -> str:
    return f"histogram_quantile({q}, sum by (le{by}) (rate({metric}_bucket{where}[5m])))"


_RECOMMEND = '{route="/recommend"}'
_HITS = 'sum(rate(marquee_cache_lookups_total{result="hit"}[5m]))'
_UNFINISHED = (
    'sum(increase(marquee_requests_total{route="/users/{user_id}",status=~"5.."}[1d])) or vector(0)'
)

DASHBOARDS: dict[str, list[Panel]] = {
    "serving": [
        Panel(
            "Requests", "sum by (route) (rate(marquee_requests_total[5m]))", "reqps", "{{route}}"
        ),
        Panel(
            "Errors",
            '(sum(rate(marquee_requests_total{status=~"5.."}[5m])) or vector(0)) '
            "/ sum(rate(marquee_requests_total[5m]))",
            "percentunit",
        ),
        Panel("/recommend P50", _quantile(0.5, "marquee_request_seconds", "", _RECOMMEND), "s"),
        Panel("/recommend P95", _quantile(0.95, "marquee_request_seconds", "", _RECOMMEND), "s"),
        Panel("/recommend P99", _quantile(0.99, "marquee_request_seconds", "", _RECOMMEND), "s"),
        Panel("Stages P95", _quantile(0.95, "marquee_stage_seconds", ", stage"), "s", "{{stage}}"),
        Panel("Cache hits", f"{_HITS} / sum(rate(marquee_cache_lookups_total[5m]))", "percentunit"),
        Panel(
            "Requests per batch",
            "sum(rate(marquee_batch_size_sum[5m])) / sum(rate(marquee_batch_size_count[5m]))",
            "short",
        ),
        Panel(
            "Breakers (0 closed, 1 half-open, 2 open)",
            "max by (dependency) (marquee_breaker_state)",
            "short",
            "{{dependency}}",
        ),
    ],
    "model": [
        Panel(
            "Replicas per version",
            "sum by (version) (marquee_model_version)",
            "short",
            "version {{version}}",
        ),
        Panel(
            "Done without",
            "sum by (dependency, error) (rate(marquee_degraded_total[5m]))",
            "ops",
            "{{dependency}} {{error}}",
        ),
        Panel("Candidates ranked", "sum(rate(marquee_candidates_total[5m]))", "ops"),
        Panel(
            "Retrieval P95",
            _quantile(0.95, "marquee_stage_seconds", "", '{stage="retrieve"}'),
            "s",
        ),
        Panel("Ranking P95", _quantile(0.95, "marquee_stage_seconds", "", '{stage="rank"}'), "s"),
        Panel(
            "Recall@100 of sampled searches",
            "sum(rate(marquee_ann_recall_sum[1h])) / sum(rate(marquee_ann_recall_count[1h]))",
            "percentunit",
        ),
    ],
    "data": [
        Panel(
            "Feedback",
            "sum by (event_type) (rate(marquee_feedback_total[5m]))",
            "ops",
            "{{event_type}}",
        ),
        Panel("Feedback in a day", "sum(increase(marquee_feedback_total[1d]))", "short"),
        Panel(
            "Feedback per slate",
            "sum(rate(marquee_feedback_total[5m])) "
            '/ sum(rate(marquee_requests_total{route="/recommend"}[5m]))',
            "percentunit",
        ),
        Panel(
            "Age of online features",
            "max by (feature) (marquee_feature_age_seconds)",
            "s",
            "{{feature}}",
        ),
        Panel("Users erased in a day", "sum(increase(marquee_erasures_total[1d]))", "short"),
        Panel("Erasures that failed in a day", _UNFINISHED, "short"),
    ],
    "ray": [
        Panel(
            "Replicas wanted",
            "sum by (deployment) (ray_serve_autoscaling_desired_replicas)",
            "short",
            "{{deployment}}",
        ),
        Panel(
            "Replicas",
            "sum by (deployment) (ray_serve_autoscaling_target_replicas)",
            "short",
            "{{deployment}}",
        ),
        Panel(
            "Waiting for a replica",
            "sum by (deployment) (ray_serve_deployment_queued_queries)",
            "short",
            "{{deployment}}",
        ),
        Panel(
            "Processing P95",
            _quantile(0.95, "ray_serve_deployment_processing_latency_ms", ", deployment"),
            "ms",
            "{{deployment}}",
        ),
        Panel("CPU of nodes", "avg by (ip) (ray_node_cpu_utilization)", "percent", "{{ip}}"),
        Panel(
            "Memory of nodes",
            "max by (ip) (ray_node_mem_used) / max by (ip) (ray_node_mem_total)",
            "percentunit",
            "{{ip}}",
        ),
        Panel("Object store", "sum by (ip) (ray_object_store_memory)", "bytes", "{{ip}}"),
    ],
}


def dashboard(name: str) -> dict[str, Any]:
    """Grafana's JSON of one dashboard."""
    return {
        "uid": f"marquee-{name}",
        "title": f"Marquee: {name}",
        "tags": ["marquee"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]
        },
        "panels": [_panel(number, panel) for number, panel in enumerate(DASHBOARDS[name])],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, 2)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": "A", "datasource": _SOURCE, "expr": panel.expr, "legendFormat": panel.legend}
        ],
    }
