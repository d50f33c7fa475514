import json

import numpy as np
import pytest
from pydantic import ValidationError

from tests.datasets import make_dataset, random_dataset
from tests.runs import tiny_run
from training.data.splits import TRAIN, VALIDATION, split
from training.errors import UserError
from training.evaluate import events_where
from training.inputs import user_tower_features
from training.recipe import Recipe
from training.run import Epoch, Run
from training.towers import _done
from training.train import Request, check_recipe, train, training_data


def ask(path, **fields):
    return train(Request(data=path / "data", out=path / "out", **fields), report=lambda line: None)


@pytest.fixture
def tiny(tmp_path):
    tiny_run(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "field, value",
    [
        ("epochs", 0),
        ("epochs", -3),
        ("workers", 0),
        ("workers", -1),
        ("k_core", -1),
        ("seed", -1),
        ("min_workers", 0),
        ("min_workers", 3),
        ("max_failures", -1),
        ("checkpoints", "gs://bucket/a"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_by_name(tiny, field, value):
    with pytest.raises(UserError, match=f"--{field.replace('_', '-')} {value}"):
        ask(tiny, **{field: value})
    assert not (tiny / "out").exists()


def test_an_unknown_protocol_leaves_nothing_behind(tiny):
    with pytest.raises(UserError, match="unknown protocol"):
        ask(tiny, protocol="by-moon")
    assert not (tiny / "out").exists()


def test_data_that_was_not_prepared_is_refused(tmp_path):
    with pytest.raises(UserError, match="marquee prepare"):
        ask(tmp_path)


def test_a_directory_with_something_else_in_it_is_not_touched(tiny):
    (tiny / "out").mkdir()
    (tiny / "out" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="not empty"):
        ask(tiny)
    assert [path.name for path in (tiny / "out").iterdir()] == ["thesis.tex"]


def test_a_run_that_cannot_be_made_there_is_refused(tiny):
    (tiny / "file").touch()
    with pytest.raises(UserError, match="cannot make"):
        train(Request(data=tiny / "data", out=tiny / "file" / "run"), report=lambda line: None)


def test_an_mlflow_that_cannot_be_used_is_named_before_anything_is_trained(tiny, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "gopher://nowhere")
    with pytest.raises(UserError, match="gopher://nowhere.*MLFLOW_TRACKING_URI"):
        ask(tiny)


def test_a_run_is_not_begun_again_unasked(tiny):
    with pytest.raises(UserError, match="--resume"):
        train(Request(data=tiny / "data", out=tiny / "run"), report=lambda line: None)


def test_there_must_be_a_run_to_resume(tiny):
    with pytest.raises(UserError, match="not a training run"):
        ask(tiny, resume=True)


@pytest.mark.parametrize("field, value", [("protocol", "user-random"), ("seed", 7), ("k_core", 3)])
def test_resuming_under_other_settings_is_refused(tiny, field, value):
    request = Request(data=tiny / "data", out=tiny / "run", resume=True, **{field: value})
    with pytest.raises(UserError, match="was begun with"):
        train(request, report=lambda line: None)


def test_a_run_goes_on_where_its_checkpoints_are(tiny):
    def resume(place):
        request = Request(tiny / "data", tiny / "run", resume=True, checkpoints=str(place))
        return train(request, report=lambda line: None)

    with pytest.raises(UserError, match="has its own elsewhere"):
        resume(tiny / "elsewhere")
    Run.read(tiny / "run").updated(checkpoints="s3://bucket/a/run-1").write(tiny / "run")
    assert resume("s3://bucket/a/").checkpoints == "s3://bucket/a/run-1"


def test_resuming_on_other_data_is_refused(tiny):
    statistics = tiny / "data" / "statistics.json"
    record = json.loads(statistics.read_text())
    statistics.write_text(json.dumps(record | {"fingerprint": "another"}))
    with pytest.raises(UserError, match="prepared again"):
        train(Request(data=tiny / "data", out=tiny / "run", resume=True), lambda line: None)


def test_resuming_a_finished_run_does_nothing_and_says_so(tiny):
    lines = []
    run = train(Request(data=tiny / "data", out=tiny / "run", resume=True), lines.append)
    assert run.status == "finished"
    assert "finished already" in lines[0]


def test_the_tower_is_told_of_users_what_train_says_and_only_if_the_recipe_asks():
    dataset = random_dataset()
    cut = split(dataset, "leave-one-out", k_core=0, seed=0)
    validation = events_where(dataset, cut.fold == VALIDATION)
    data = training_data(dataset, cut, Recipe(user_features=True), validation)
    expected = user_tower_features(dataset, cut.fold == TRAIN)
    assert np.array_equal(data.user_features, expected) and expected.any()
    assert training_data(dataset, cut, Recipe(), validation).user_features is None


def test_features_of_users_that_cannot_be_are_refused():
    bare = make_dataset(user=[0, 0, 1], item=[0, 1, 1])
    with pytest.raises(UserError, match="user_features are made of ratings and times"):
        check_recipe(Recipe(user_features=True), bare)
    check_recipe(Recipe(), bare)


def test_training_stops_after_the_last_epoch_or_without_progress(tiny):
    run = Run.read(tiny / "run").updated(recipe=Recipe(epochs=5, patience=2))

    def done(*scores):
        return _done([Epoch(epoch=1, loss=1, ndcg=s, seconds=1) for s in scores], run)

    assert not done()
    assert not done(0.1, 0.2, 0.15)
    assert done(0.1, 0.2, 0.15, 0.2)  # as good is not better
    assert done(0.1, 0.2, 0.3, 0.4, 0.5)


def test_every_setting_of_the_recipe_is_documented_and_none_can_be_misspelt():
    assert all(field.description for field in Recipe.model_fields.values())
    with pytest.raises(ValidationError):
        Recipe(learning_rat=1)
    with pytest.raises(ValidationError):
        Recipe().epochs = 3
