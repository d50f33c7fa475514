import json

import pytest
import yaml

from training.errors import UserError
from training.recipe import Recipe, recipe_for
from training.recipe_file import read_recipe, recipe_text


def written(tmp_path, text, name="recipe.yaml"):
    file = tmp_path / name
    file.write_text(text)
    return file


def refused(file):
    with pytest.raises(UserError) as caught:
        read_recipe(file, "leave-one-out")
    return str(caught.value).splitlines()


def test_a_file_changes_what_it_names_and_the_protocols_recipe_gives_the_rest(tmp_path):
    file = written(tmp_path, "loss: bpr\nhalf_lives: [1, 4]\n")
    expected = recipe_for("user-random").model_copy(update={"loss": "bpr", "half_lives": (1, 4)})
    assert read_recipe(file, "user-random") == expected


def test_json_and_an_empty_file_are_recipes(tmp_path):
    file = written(tmp_path, json.dumps({"hidden": 64}), "recipe.json")
    assert read_recipe(file, "leave-one-out") == Recipe(hidden=64)
    assert read_recipe(written(tmp_path, ""), "leave-one-out") == Recipe()


def test_what_is_printed_can_be_read_again_and_names_every_setting(tmp_path):
    recipe = Recipe(loss="mixed", temperature=0.1, user_ids=True)
    text = recipe_text(recipe)
    assert set(yaml.safe_load(text)) == set(Recipe.model_fields)
    assert read_recipe(written(tmp_path, text), "user-random") == recipe


def test_every_mistake_has_a_line_of_its_own_that_names_the_setting(tmp_path):
    lines = refused(written(tmp_path, "learning_rat: 1\nepochs: 0\nloss: hinge\nnonsense: 1\n"))
    assert len(lines) == 4 and all(line.startswith(str(tmp_path)) for line in lines)
    assert "did you mean learning_rate?" in lines[0] and "marquee recipe" in lines[1]
    assert "epochs: " in lines[3] and "not 0" in lines[3]
    assert "loss: " in lines[2] and "'hinge'" in lines[2]


@pytest.mark.parametrize(
    "text, said", [("- a\n- b\n", "not a recipe"), ("a: [1\nb: 2", "neither YAML nor JSON")]
)
def test_a_file_of_another_kind_is_refused_in_one_line(tmp_path, text, said):
    (line,) = refused(written(tmp_path, text))
    assert said in line


def test_a_file_that_is_not_there_is_named(tmp_path):
    (line,) = refused(tmp_path / "none.yaml")
    assert "none.yaml" in line
