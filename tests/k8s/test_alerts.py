"""Each alert is fired by what it is for, and by nothing else: Prometheus' own test of rules."""

import re
import shutil
import subprocess

import pytest
import yaml

# Series a minute apart, as promtool writes them: "first+step x times".
HEALTHY = {
    'marquee_requests_total{route="/recommend",status="200"}': "0+6000x40",
    'marquee_request_seconds_bucket{route="/recommend",le="0.05"}': "0+6000x40",
    'marquee_request_seconds_bucket{route="/recommend",le="0.3"}': "0+6000x40",
    'marquee_request_seconds_bucket{route="/recommend",le="1"}': "0+6000x40",
    'marquee_request_seconds_bucket{route="/recommend",le="+Inf"}': "0+6000x40",
    "marquee_batch_size_count": "0+600x40",
    'marquee_degraded_total{dependency="cache",error="TimeoutError"}': "0+1x40",
    'marquee_breaker_state{dependency="cache",ip="10.0.0.1"}': "0x40",
    'marquee_breaker_state{dependency="cache",ip="10.0.0.2"}': "0x10 2 0x30",
    'marquee_requests_total{route="/users/{user_id}",status="200"}': "0+1x40",
    'marquee_cache_lookups_total{result="hit"}': "0+4000x40",
    'marquee_cache_lookups_total{result="miss"}': "0+2000x40",
    'marquee_model_version{version="1"}': "1x40",
    'ray_serve_autoscaling_desired_replicas{deployment="Rank"}': "2x40",
    'ray_serve_autoscaling_target_replicas{deployment="Rank"}': "2x40",
    'ray_node_mem_used{ip="10.0.0.1"}': "5x40",
    'ray_node_mem_total{ip="10.0.0.1"}': "10x40",
    'kube_statefulset_status_replicas_ready{statefulset="marquee-redis-state"}': "1x40",
    'kube_statefulset_replicas{statefulset="marquee-redis-state"}': "1x40",
    'kube_statefulset_status_replicas_ready{statefulset="other"}': "0x40",
    'kube_statefulset_replicas{statefulset="other"}': "1x40",
    'kube_job_status_failed{job_name="marquee-nightly-1"}': "0x40",
}
TROUBLE = {
    "MarqueeErrors": {'marquee_requests_total{route="/recommend",status="503"}': "0+60x40"},
    "MarqueeSlow": {
        'marquee_request_seconds_bucket{route="/recommend",le="0.3"}': "0+5900x40",
        'marquee_request_seconds_bucket{route="/recommend",le="0.05"}': "0+5900x40",
    },
    "MarqueeDegraded": {'marquee_degraded_total{dependency="rank",error="x"}': "0+60x40"},
    "MarqueeRedisDown": {'marquee_degraded_total{dependency="user_state",error="x"}': "0+600x40"},
    "MarqueeQdrantDown": {'marquee_degraded_total{dependency="retrieve",error="x"}': "0+600x40"},
    "MarqueeBreakerOpen": {'marquee_breaker_state{dependency="cache",ip="10.0.0.2"}': "2x40"},
    "MarqueeErasureFailed": {
        'marquee_requests_total{route="/users/{user_id}",status="503"}': "_x20 1x20"
    },
    "MarqueeStoreNotReady": {
        'kube_statefulset_status_replicas_ready{statefulset="marquee-redis-state"}': "0x40"
    },
    "MarqueeNoVersion": {'marquee_model_version{version="1"}': "0x40"},
    "MarqueeVersionsDiffer": {'marquee_model_version{version="2"}': "1x40"},
    "MarqueeCacheMisses": {'marquee_cache_lookups_total{result="miss"}': "0+4000x40"},
    "MarqueeReplicasWanted": {'ray_serve_autoscaling_desired_replicas{deployment="Rank"}': "3x40"},
    "MarqueeRayNodeMemory": {'ray_node_mem_used{ip="10.0.0.1"}': "9.5x40"},
    "MarqueeTrainingFailed": {'kube_job_status_failed{job_name="marquee-nightly-1"}': "1x40"},
}
# A dependency that is down is also one that answers do without.
FIRED_AS_WELL = {
    "MarqueeRedisDown": {"MarqueeDegraded"},
    "MarqueeQdrantDown": {"MarqueeDegraded"},
}


def rules_of(render):
    values = {"monitoring": {"rules": True, "alerts": {"cacheHitShare": 0.6}}}
    (found,) = [made for made in render(values) if made["kind"] == "PrometheusRule"]
    return found["spec"]


def case(series, fired, known):
    """promtool's test that after half an hour these alerts fire, of all that are known."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
                "eval_time": "39m",
                "exp_samples": [{"labels": "{}", "value": int(alert in fired)}],
            }
            for alert in known
        ],
    }


def test_every_alert_is_fired_by_its_trouble_and_by_no_other(render, tmp_path):
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool (Debian's package prometheus)")
    rules = rules_of(render)
    known = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    assert set(known) == set(TROUBLE)
    cases = [case(HEALTHY, set(), known)]
    for alert, series in TROUBLE.items():
        cases.append(case(HEALTHY | series, {alert} | FIRED_AS_WELL.get(alert, set()), known))
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": cases}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        ["promtool", "test", "rules", "tests.yaml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, re.sub(r"\n +", " ", done.stdout + done.stderr)
