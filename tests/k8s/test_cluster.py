"""`marquee k8s` against a recorded API server."""

import json
import threading
import time

import pytest
import typer
import uvicorn
import yaml
from typer.testing import CliRunner

from app.cluster_commands import register
from tests.k8s.fake_api import FakeApi


@pytest.fixture
def api():
    return FakeApi()


@pytest.fixture
def marquee_k8s(api, tmp_path):
    """Runs `marquee k8s ...` on a kubeconfig of the fake server."""
    server = uvicorn.Server(uvicorn.Config(api.app(), port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    root = typer.Typer()
    register(root)

    def run(*words):
        options = ["--kubeconfig", str(kubeconfig), "--namespace", "recsys"]
        return CliRunner().invoke(root, ["k8s", *words, *options])

    yield run
    server.should_exit = True
    thread.join()


def test_status_tells_readiness_version_and_pods(marquee_k8s):
    result = marquee_k8s("status", "--json")
    assert result.exit_code == 0, result.output
    seen = json.loads(result.stdout)
    assert seen["ready"] is True
    assert seen["model_version"] == "1"
    assert seen["applications"] == {"marquee": "RUNNING"}
    assert [pod["ready"] for pod in seen["pods"]] == [True, False, True]
    assert "marquee-x7k2p-head" in marquee_k8s("status").stdout


def test_status_of_a_service_that_does_not_answer_has_no_version(marquee_k8s, api):
    api.version = None
    assert json.loads(marquee_k8s("status", "--json").stdout)["model_version"] is None


def test_where_the_api_server_may_not_ask_the_service_a_worker_is_asked(marquee_k8s, api):
    """A policy that lets in some namespaces only knows none that the API server is in."""
    api.is_proxied = False
    assert json.loads(marquee_k8s("status", "--json").stdout)["model_version"] == "1"
    assert marquee_k8s("promote", "2").stdout == "version 2 answers now\n"


def test_a_release_that_is_not_there_is_one_line(marquee_k8s):
    result = marquee_k8s("status", "--release", "other")
    assert result.exit_code == 2
    assert 'rayservices.ray.io "other-marquee" not found' in result.stderr


def test_promote_runs_in_a_ready_worker_and_waits_until_the_version_answers(marquee_k8s, api):
    result = marquee_k8s("promote", "2")
    assert result.exit_code == 0, result.output
    assert api.commands == [["marquee", "promote", "2", "--json"]]
    assert result.stdout == "version 2 answers now\n"


def test_rollback_returns_to_the_version_before(marquee_k8s, api):
    api.version = "2"
    result = marquee_k8s("rollback")
    assert result.stdout == "version 1 answers now\n"


def test_a_promotion_that_is_refused_says_why(marquee_k8s, api):
    api.exit_code = 2
    result = marquee_k8s("promote", "9")
    assert result.exit_code == 2
    assert "version 9 is not there" in result.stderr


def test_without_a_ready_worker_nothing_is_promoted(marquee_k8s, api):
    api.pods = api.pods[:2]
    result = marquee_k8s("promote", "2")
    assert result.exit_code == 2
    assert "no worker of marquee in recsys is ready" in result.stderr
    assert api.commands == []


def test_logs_are_the_last_lines_of_each_pod(marquee_k8s):
    lines = marquee_k8s("logs", "serve-worker", "--lines", "2").stdout.splitlines()
    assert lines == [
        "marquee-x7k2p-worker-1: line 0",
        "marquee-x7k2p-worker-1: line 1",
        "marquee-x7k2p-worker-2: line 0",
        "marquee-x7k2p-worker-2: line 1",
    ]


def test_logs_of_a_component_without_pods_name_those_that_have(marquee_k8s):
    result = marquee_k8s("logs", "qdrant")
    assert result.exit_code == 2
    assert "there are serve-head, serve-worker" in result.stderr


def test_a_cluster_that_is_away_is_one_line(tmp_path):
    root = typer.Typer()
    register(root)
    result = CliRunner().invoke(root, ["k8s", "status", "--kubeconfig", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert "no usable kubeconfig" in result.stderr
