from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.runs import tiny_run
from training.cli import build_app
from training.data.dataset import load
from training.errors import UserError
from training.recipe import Recipe
from training.recipe_file import read_recipe
from training.tune import SPACE, Trial, TuneRequest, _asked, _begin, _write, finished, start, tune


@pytest.fixture
def request_of(tmp_path):
    tiny_run(tmp_path)
    return TuneRequest(data=tmp_path / "data", out=tmp_path / "tuning", trials=2)


def begin(request):
    return _begin(request, _asked(request, load(request.data))[0])


def test_a_tuning_goes_on_only_as_it_was_begun(request_of):
    begun = begin(request_of)
    again = replace(request_of, resume=True)
    assert begin(again) == begun
    for change in ({"seed": 1}, {"epochs": 2}, {"protocol": "user-random"}):
        with pytest.raises(UserError, match="was begun with another"):
            begin(replace(again, **change))
    with pytest.raises(UserError, match=r"another trials \(2\): use the same, or another --out"):
        begin(replace(again, trials=3))


def test_a_directory_in_use_is_not_touched(request_of):
    begin(request_of)
    with pytest.raises(UserError, match="add --resume"):
        begin(request_of)
    with pytest.raises(UserError, match="holds no tuning"):
        begin(replace(request_of, out=request_of.data, resume=True))


def test_too_few_trials_are_refused(request_of):
    done = CliRunner().invoke(
        build_app(),
        ["tune", str(request_of.data), "--out", str(request_of.out), "--trials", "0"],
    )
    assert isinstance(done.exception, UserError) and "--trials 0" in str(done.exception)
    assert not request_of.out.exists()


def test_unprepared_data_is_refused(tmp_path):
    with pytest.raises(UserError, match="marquee prepare"):
        tune(TuneRequest(data=tmp_path, out=tmp_path / "out"), print)


def test_the_first_trial_is_the_recipe_itself_moved_into_the_space():
    recipe = Recipe(hidden=4096)
    begun = start(recipe)
    assert set(begun) == set(SPACE)
    assert begun["hidden"] == 512 and begun["learning_rate"] == recipe.learning_rate


def test_every_corner_of_the_space_is_a_recipe():
    for side in ("low", "high"):
        settings = {name: getattr(space, side) for name, space in SPACE.items()}
        Recipe.model_validate(Recipe().model_dump() | settings)


def test_a_trial_ends_with_its_epochs_or_its_patience():
    recipe = Recipe(epochs=5, patience=2)
    assert not finished([], recipe) and not finished([0.1, 0.2, 0.1], recipe)
    assert finished([0.2, 0.1, 0.1], recipe) and finished(list(np.arange(5)), recipe)


def test_the_best_trials_settings_become_a_recipe_file(tmp_path):
    base = Recipe(loss="bpr", epochs=7)
    best = Trial({**start(base), "learning_rate": 0.002}, 0.3, 4)
    _write(tmp_path, base, [best, Trial(start(base), 0.2, 7)])
    read = read_recipe(tmp_path / "recipe.yaml", "user-temporal")
    assert (read.loss, read.epochs, read.learning_rate) == ("bpr", 7, 0.002)
