"""The gate between a training and production, and waiting for a first version."""

import json
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from training.errors import UserError
from training.model.store import POINTER, Production
from training.retrain import GateClosed, check_gate
from training.retrain_commands import register


def evaluation(ranked, popularity, protocol="leave-one-out"):
    def measured(value):
        return {"ndcg@10": {"value": value, "low": value, "high": value}}

    models = {"ranked": measured(ranked), "popularity": measured(popularity)}
    return {"protocol": protocol, "models": models}


def production(ranked, protocol="leave-one-out"):
    return SimpleNamespace(version="4", metrics=evaluation(ranked, 0.01, protocol))


def test_the_first_version_of_a_store_always_passes():
    assert "first version" in check_gate(evaluation(0.01, 0.02), None, 0.05)


def test_a_model_as_good_as_productions_passes():
    assert "version 4 has 0.1000" in check_gate(evaluation(0.1, 0.02), production(0.1), 0.0)


def test_a_model_that_lost_no_more_than_allowed_passes():
    check_gate(evaluation(0.096, 0.02), production(0.1), 0.05)


def test_a_model_that_lost_more_is_stopped_with_both_figures():
    with pytest.raises(GateClosed, match=r"0\.0940 is below 0\.0950, 95% of version 4's 0\.1000"):
        check_gate(evaluation(0.094, 0.02), production(0.1), 0.05)


def test_a_model_that_does_not_beat_popularity_is_stopped():
    with pytest.raises(GateClosed, match=r"not above popularity's 0\.0300"):
        check_gate(evaluation(0.03, 0.03), production(0.01), 0.05)


def test_figures_of_another_protocol_are_not_compared():
    said = check_gate(evaluation(0.05, 0.02), production(0.4, "user-random"), 0.05)
    assert "nothing else to compare with" in said


@pytest.fixture
def marquee():
    root = typer.Typer()
    register(root)
    return lambda *words: CliRunner().invoke(root, [str(word) for word in words])


def point(store, version):
    store.mkdir(parents=True, exist_ok=True)
    pointer = Production(version=version, previous=[], changed_at="2026-01-01T00:00:00+00:00")
    (store / POINTER).write_text(json.dumps(pointer.model_dump()))


def test_wait_returns_when_a_version_answers(marquee, tmp_path):
    point(tmp_path / "store", "3")
    result = marquee("wait", "--store", tmp_path / "store")
    assert result.exit_code == 0
    assert result.stdout.endswith("version 3\n")


def test_wait_gives_up_and_says_what_it_saw(marquee, tmp_path):
    result = marquee("wait", "--store", tmp_path, "--timeout-s", "0", "--every-s", "0.01")
    assert isinstance(result.exception, UserError)
    assert "nothing is published yet" in str(result.exception)


def test_retraining_only_an_empty_store_leaves_a_filled_one_alone(marquee, tmp_path, monkeypatch):
    from training import retrain

    point(tmp_path / "store", "3")
    monkeypatch.setattr(retrain, "production_manifest", lambda store: production(0.1))
    result = marquee(
        "retrain", "--store", tmp_path / "store", "--work", tmp_path / "work", "--only-if-empty"
    )
    assert result.exit_code == 0
    assert "answers already" in result.stderr
    assert not (tmp_path / "work").exists()


def test_a_closed_gate_publishes_nothing_and_has_a_status_of_its_own(
    marquee, tmp_path, monkeypatch
):
    from training import publish, retrain

    monkeypatch.setattr(retrain, "production_manifest", lambda store: production(0.1))
    monkeypatch.setattr(retrain, "make_run", lambda plan, report: evaluation(0.05, 0.02))
    monkeypatch.setattr(publish, "publish", lambda *_, **__: pytest.fail("published"))
    result = marquee("retrain", "--store", tmp_path / "store", "--work", tmp_path / "work")
    assert result.exit_code == 3
    assert "not published" in result.stderr
