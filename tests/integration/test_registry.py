"""The MLflow registry on a real SQLite file, through the commands."""

import json
import shutil
import sqlite3
from contextlib import closing
from socket import socket

import pytest
import typer
from typer.testing import CliRunner

from tests.runs import tiny_run
from training.publish_commands import register
from training.run import Run
from training.tracking import TrackedRun

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def migrated(tmp_path_factory):
    """An empty MLflow database; making one takes seconds."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def database(migrated, tmp_path, monkeypatch):
    """The tracking database, where MLflow looks by default: in the current directory."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return shutil.copy(migrated, tmp_path / "mlflow.db")


@pytest.fixture
def run(tmp_path, database):
    path = tiny_run(tmp_path)
    Run.read(path).updated(mlflow_run_id=TrackedRun("run", None).run_id).write(path)
    return path


def _marquee(*arguments):
    app = typer.Typer()
    register(app)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None, result.exception
    return result


def _rows(database, query):
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def _alias(database):
    """The registry's version that is `production`."""
    query = "select alias, version from registered_model_aliases where name = 'marquee'"
    return dict(_rows(database, query)).get("production")


def test_a_published_bundle_is_a_registered_version_with_its_store(run, database, tmp_path):
    result = _marquee("publish", run, "--store", tmp_path / "store", "--json")
    assert json.loads(result.stdout)["registered"] == "1"
    (row,) = _rows(database, "select name, source, run_id from model_versions")
    assert row == (
        "marquee",
        f"marquee-store://{tmp_path}/store/bundles/1",
        Run.read(run).mlflow_run_id,
    )
    tags = dict(_rows(database, "select key, value from model_version_tags"))
    assert tags["store"] == str(tmp_path / "store")
    assert tags["bundle_version"] == "1"
    assert tags["split_hash"] == Run.read(run).split_hash
    assert _alias(database) == 1


def test_the_alias_follows_promotion_and_rollback_from_any_directory(
    run, database, tmp_path, monkeypatch
):
    for name in ("first", "second", "second"):
        _marquee("publish", run, "--store", tmp_path / name)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert _alias(database) == 2  # the first version of the second store
    _marquee("promote", "2", "--store", tmp_path / "second")
    assert _alias(database) == 3
    _marquee("rollback", "--store", tmp_path / "second")
    assert _alias(database) == 2
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("kind", ["no server", "no database"])
def test_a_registry_that_fails_is_a_warning(run, tmp_path, monkeypatch, kind):
    (tmp_path / "text").write_text("not a database")
    with socket() as unanswered:  # bound and not listening: connections are refused
        unanswered.bind(("127.0.0.1", 0))
        server = f"http://127.0.0.1:{unanswered.getsockname()[1]}"
        uri = server if kind == "no server" else f"sqlite:///{tmp_path / 'text'}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        published = _marquee("publish", run, "--store", tmp_path / "store", "--json")
        promoted = _marquee("promote", "1", "--store", tmp_path / "store")
    assert json.loads(published.stdout)["registered"] is None
    assert "not registered in MLflow" in published.stderr
    assert "was not moved" in promoted.stderr
    assert "version 1 answers now" in promoted.stdout


def test_a_version_that_the_registry_does_not_know_is_promoted_with_a_warning(
    run, database, tmp_path
):
    _marquee("publish", run, "--store", tmp_path / "store")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("delete from model_version_tags")
        connection.execute("delete from registered_model_aliases")
        connection.execute("delete from model_versions")
    result = _marquee("promote", "1", "--store", tmp_path / "store")
    assert "knows no version 1" in result.stderr
    assert "version 1 answers now" in result.stdout


def test_a_run_that_this_registry_does_not_know_is_registered_all_the_same(run, database, tmp_path):
    Run.read(run).updated(mlflow_run_id="0" * 32).write(run)
    result = _marquee("publish", run, "--store", tmp_path / "store", "--json")
    assert json.loads(result.stdout)["registered"] == "1"
