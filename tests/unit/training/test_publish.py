"""From a finished run to the version that answers, through the commands."""

import json
import shutil

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from tests.runs import tiny_run
from training.data.dataset import load
from training.errors import UserError
from training.inputs import ranker_item_inputs, ranker_user_inputs
from training.model.bundle import Bundle
from training.neighbours import neighbours
from training.publish import publish
from training.publish_commands import register
from training.run import Run
from training.store import Store


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def run(finished, tmp_path):
    """A run of the test's own, whose data is the shared one."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def _no_tracking_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MARQUEE_STORE", raising=False)


@pytest.fixture
def no_registry(monkeypatch):
    """Registering has tests of its own and takes seconds."""
    monkeypatch.setattr("training.registry.register", lambda *_: "1")
    monkeypatch.setattr("training.registry.mark_production", lambda *_: "1")


def _marquee(*arguments):
    app = typer.Typer(rich_markup_mode="markdown")
    register(app)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _json(*arguments):
    result = _marquee(*arguments, "--json")
    assert result.exception is None, result.exception
    return json.loads(result.stdout)


def _mistake(*arguments):
    result = _marquee(*arguments)
    assert isinstance(result.exception, UserError), result.exception
    assert "\n" not in str(result.exception)
    return str(result.exception)


def _quiet(step):
    """A report that nobody reads."""


@pytest.mark.parametrize(("has_time", "id_type"), [(True, "int"), (False, "str")])
def test_a_bundle_holds_all_events_and_their_features(tmp_path, has_time, id_type):
    run = tiny_run(tmp_path, has_time=has_time, id_type=id_type)
    published = publish(run, Store.open(str(tmp_path / "store")), report=_quiet)
    bundle = Bundle.open(tmp_path / "store" / "bundles" / "1")
    dataset = load(tmp_path / "data")
    every = np.ones(dataset.n_events, dtype=bool)
    assert published.manifest == bundle.manifest
    assert bundle.manifest.entity.id_type == id_type
    assert bundle.manifest.entity.verb == dataset.verb
    assert bundle.items.ids == dataset.item_ids.tolist()
    for row, user_id in enumerate(dataset.user_ids.tolist()):
        assert bundle.user_row(user_id) == row
        watched = dataset.item[dataset.user == row]
        assert bundle.history(user_id).tolist() == watched.tolist()
    np.testing.assert_array_equal(bundle.item_features, ranker_item_inputs(dataset, every))
    np.testing.assert_array_equal(bundle.user_features, ranker_user_inputs(dataset, every))
    np.testing.assert_array_equal(bundle.item_vectors, np.load(run / "model" / "item_vectors.npy"))
    near, weights = neighbours(dataset.item, dataset.offsets, dataset.n_items)
    np.testing.assert_array_equal(bundle.neighbours, near)
    np.testing.assert_array_equal(bundle.neighbour_weights, weights)
    assert bundle.manifest.split.hash == Run.read(run).split_hash
    assert bundle.manifest.recipe["epochs"] == 1


def test_popularity_prefers_recent_events(tmp_path):
    run = tiny_run(tmp_path)
    publish(run, Store.open(str(tmp_path / "store")), report=_quiet)
    bundle = Bundle.open(tmp_path / "store" / "bundles" / "1")
    dataset = load(tmp_path / "data")
    newest = dataset.timestamp == dataset.timestamp.max()
    last = np.bincount(dataset.item[newest], minlength=dataset.n_items)
    assert last[bundle.popularity[0]] > 0
    assert bundle.popularity_score.sum() < dataset.n_events
    assert bundle.popularity_score[19] == 0  # never watched, and still in the catalogue
    assert bundle.popularity[-1] == 19


def test_the_drift_baseline_is_made_of_distributions(tmp_path):
    publish(tiny_run(tmp_path), Store.open(str(tmp_path / "store")), report=_quiet)
    drift = json.loads((tmp_path / "store" / "bundles" / "1" / "drift.json").read_text())
    for name in ("history_length", "popularity", "score"):
        assert sum(drift[name]["shares"]) == pytest.approx(1, abs=1e-4)
        assert len(drift[name]["shares"]) == len(drift[name]["edges"]) + 1
    assert drift["history_length"]["shares"][3] == 1  # every user has 6 events: from 5 to 10
    assert drift["score"]["shares"] == pytest.approx([0.1] * 10, abs=0.01)
    assert sum(drift["genres"].values()) == pytest.approx(1, abs=1e-4)


def test_the_first_version_answers_at_once_and_later_ones_when_promoted(run, store, no_registry):
    first = _json("publish", run, "--store", store)
    second = _json("publish", run, "--store", store)
    third = _json("publish", run, "--store", store, "--promote")
    assert [p["version"] for p in (first, second, third)] == ["1", "2", "3"]
    assert [p["promoted"] for p in (first, second, third)] == [True, False, True]
    assert Store.open(str(store)).pointer().previous == ["1"]
    assert _json("promote", "2", "--store", store)["version"] == "2"
    assert _json("rollback", "--store", store) == {
        "store": str(store),
        "version": "3",
        "previous": ["1"],
    }


def test_versions_are_listed_with_what_the_evaluation_found(run, store, no_registry):
    _json("publish", run, "--store", store)
    metrics = {"ndcg@10": {"value": 0.123, "low": 0.1, "high": 0.2}}
    evaluation = {"protocol": "user-temporal", "models": {"two-tower": metrics}}
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    _json("publish", run, "--store", store)
    listed = _json("versions", "--store", store)["versions"]
    assert [row["ndcg@10"] for row in listed] == [None, 0.123]
    assert [row["protocol"] for row in listed] == ["leave-one-out", "user-temporal"]
    assert [row["production"] for row in listed] == [True, False]
    table = _marquee("versions", "--store", store).stdout
    assert "0.1230" in table
    assert "yes" in table


def test_json_is_the_only_thing_on_stdout(run, store, no_registry):
    result = _marquee("publish", run, "--store", store, "--json")
    assert json.loads(result.stdout) == {
        "version": "1",
        "store": str(store),
        "promoted": True,
        "registered": "1",
    }


def test_without_json_one_line_says_what_answers(run, store, no_registry):
    assert "version 1, answers now" in _marquee("publish", run, "--store", store).stdout
    assert "`marquee promote 2`" in _marquee("publish", run, "--store", store).stdout
    assert "version 2 answers now" in _marquee("promote", "2", "--store", store).stdout


def test_a_missing_run_says_how_to_make_one(tmp_path, store):
    message = _mistake("publish", tmp_path / "none", "--store", store)
    assert "not a training run" in message
    assert "marquee train" in message
    assert not store.exists()


def test_an_unfinished_run_says_how_to_go_on(run, store):
    Run.read(run).updated(status="running").write(run)
    assert "--resume" in _mistake("publish", run, "--store", store)
    assert not store.exists()


def test_a_run_without_a_model_file_names_it(run, store):
    (run / "model" / "ranker.txt").unlink()
    assert "ranker.txt is missing" in _mistake("publish", run, "--store", store)


def test_data_that_was_prepared_again_is_noticed(run, store):
    Run.read(run).updated(fingerprint="other").write(run)
    assert "prepared again" in _mistake("publish", run, "--store", store)
    assert Store.open(str(store)).taken_versions() == []


def test_a_model_of_another_catalogue_is_noticed(run, store):
    np.save(run / "model" / "item_vectors.npy", np.zeros((3, 128), np.float32))
    assert "3 item vectors" in _mistake("publish", run, "--store", store)


@pytest.mark.parametrize("command", [["versions"], ["promote", "1"], ["rollback"]])
def test_a_store_without_versions_says_how_to_make_one(command, store):
    assert "marquee publish RUN" in _mistake(*command, "--store", store)
    assert not store.exists()


def test_a_store_on_no_known_service_is_refused(run):
    assert "s3://bucket/prefix" in _mistake("publish", run, "--store", "gs://bucket")


def test_an_unknown_version_is_not_promoted(run, store, no_registry):
    _json("publish", run, "--store", store)
    assert "no version '9'" in _mistake("promote", "9", "--store", store)
    assert Store.open(str(store)).production() == "1"


def test_a_corrupt_version_is_neither_promoted_nor_rolled_back_to(run, store, no_registry):
    for _ in range(2):
        _json("publish", run, "--store", store)
    spoilt = store / "bundles" / "1" / "popularity.npy"
    spoilt.write_bytes(spoilt.read_bytes()[::-1])
    _json("promote", "2", "--store", store)
    assert "popularity.npy" in _mistake("promote", "1", "--store", store)
    assert "popularity.npy" in _mistake("rollback", "--store", store)
    assert Store.open(str(store)).production() == "2"


def test_nothing_to_roll_back_to_is_a_users_mistake(run, store, no_registry):
    _json("publish", run, "--store", store)
    assert "no earlier production version" in _mistake("rollback", "--store", store)


@pytest.mark.parametrize("command", ["publish", "versions", "promote", "rollback"])
def test_every_command_has_an_example(command):
    help_text = _marquee(command, "--help").stdout
    assert f"marquee {command} " in " ".join(help_text.split())


def test_passwords_do_not_reach_the_manifest(run, store, no_registry, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example/base")
    _json("publish", run, "--store", store)
    text = (store / "bundles" / "1" / "manifest.json").read_text()
    assert "secret" not in text
    assert Store.open(str(store)).manifest("1").tracking.uri == "https://mlflow.example/base"
