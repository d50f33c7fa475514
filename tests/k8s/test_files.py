"""Workflows, compose and platform files: valid, and of one mind about versions."""

import re
import shutil
import subprocess
import sys
import tomllib

import httpx
import pytest
import yaml
from typer.main import get_command

from bench.smoke import SmokeError
from marquee.client import Client
from tests.scenarios import CHART, ROOT
from training.cli import build_app

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def text(name):
    return (ROOT / name).read_text()


@pytest.mark.parametrize(
    ("schema", "files"),
    [("vendor.github-workflows", WORKFLOWS), ("vendor.compose-spec", [ROOT / "compose.yaml"])],
)
def test_files_are_valid_for_those_who_read_them(schema, files):
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actionlint_finds_nothing():
    if shutil.which("actionlint") is None:
        pytest.skip("actionlint is not installed")
    done = subprocess.run(["actionlint", *WORKFLOWS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_ray_versions_agree_everywhere():
    (locked,) = re.findall(r"^ray==(.+)$", text("requirements.lock"), re.MULTILINE)
    found = set(re.findall(r"ray\[[a-z,]+\]==([\d.]+)", text("pyproject.toml")))
    for path in (ROOT / "ray_cluster.yaml", *CHART.glob("templates/**/*.yaml")):
        found |= set(re.findall(r'rayVersion: "([\d.]+)"', path.read_text()))
    assert found == {locked}


def test_the_products_version_is_the_same_everywhere():
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == version
    for name in ("Makefile", "compose.yaml", "ray_cluster.yaml", "Dockerfile"):
        assert set(re.findall(r"marquee:(\d[\w.]*)", text(name))) == {version}, name


def test_qdrant_is_the_same_in_compose_and_chart():
    tag = yaml.safe_load((CHART / "values.yaml").read_text())["qdrant"]["image"]["tag"]
    assert f"qdrant/qdrant:{tag}" in text("compose.yaml")


def test_compose_images_have_tags_and_volumes_are_declared():
    compose = yaml.safe_load(text("compose.yaml"))
    for name, service in compose["services"].items():
        assert re.search(r":v?\d", service["image"]), name
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert source in compose["volumes"] or (ROOT / source).exists(), mount


def test_compose_erases_from_the_log_that_it_exports_to():
    services = yaml.safe_load(text("compose.yaml"))["services"]
    export = services["events"]["command"]
    log = export[export.index("--log") + 1]
    assert services["api"]["environment"]["MARQUEE_EVENT_LOG"] == log
    assert set(services["api"]["volumes"]) >= set(services["events"]["volumes"])


def test_commands_in_deployment_files_are_commands_of_marquee():
    known = get_command(build_app()).commands
    files = ["compose.yaml", "render.yaml", "fly.toml", "ray_cluster.yaml", "Makefile"]
    for name in files:
        for command in re.findall(r"\bmarquee,? ([a-z]+)[ ,\]]", text(name)):
            if command not in ("helm", "image", "start"):
                assert command in known, f"{name}: marquee {command}"


def test_make_targets_that_workflows_use_exist():
    targets = set(re.findall(r"^([a-z0-9-]+):", text("Makefile"), re.MULTILINE))
    for path in WORKFLOWS:
        for target in re.findall(r"run: make ([a-z0-9-]+)", path.read_text()):
            assert target in targets, f"{path.name}: make {target}"


def test_the_dockerfile_runs_as_nobody_in_particular_and_locks_its_dependencies():
    dockerfile = text("Dockerfile")
    stages = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert stages == ["${BASE}", "${BASE}"]
    assert "BASE=python:3.11-slim-bookworm" in dockerfile
    assert "--constraint requirements.lock" in dockerfile
    assert re.search(r"^USER 1000:1000$", dockerfile, re.MULTILINE)


def test_smoke_names_what_is_wrong():
    from bench import smoke

    slate = {"recommendations": [{"movie_id": 1}], "model_version": "1"}
    answers = {"/recommend": slate, "/feedback": {"status": "stored"}}
    transport = httpx.MockTransport(lambda asked: httpx.Response(200, json=answers[asked.url.path]))
    with (
        Client("http://unused", transport=transport) as client,
        pytest.raises(SmokeError, match="still offers 1"),
    ):
        smoke.check(client)
