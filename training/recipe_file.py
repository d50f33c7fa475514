"""Recipe files: some or all settings of a Recipe, as YAML or JSON."""

import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from training.errors import UserError
from training.recipe import Recipe, recipe_for


def read_recipe(file: Path, protocol: str) -> Recipe:
    """The settings of `file`; what it does not name is as `recipe_for` has it.

    UserError with one line for each thing that is wrong.
    """
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise UserError(f"cannot read recipe {file}: {reason}") from error
    settings = _parse(file, text)
    unknown = [_unknown(name) for name in settings if name not in Recipe.model_fields]
    known = {name: value for name, value in settings.items() if name in Recipe.model_fields}
    problems = []
    try:
        recipe = Recipe.model_validate(recipe_for(protocol).model_dump() | known)
    except ValidationError as error:
        problems = [_problem(found) for found in error.errors()]
    if unknown or problems:
        raise UserError("\n".join(f"{file}: {line}" for line in unknown + problems))
    return recipe


def recipe_text(recipe: Recipe) -> str:
    """A recipe file that holds every setting, each under what it is."""
    lines = []
    for name, field in Recipe.model_fields.items():
        value = json.dumps(getattr(recipe, name))
        lines.append(f"# {field.description}\n{name}: {value}\n")
    return "\n".join(lines)


def _parse(file: Path, text: str) -> dict[str, Any]:
    """The mapping that a file holds; JSON is YAML too."""
    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise UserError(f"{file} is neither YAML nor JSON: a mistake{where}") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise UserError(f"{file} is not a recipe: lines such as `learning_rate: 0.001` are needed")
    return {str(name): value for name, value in settings.items()}


def _unknown(name: str) -> str:
    close = get_close_matches(name, Recipe.model_fields, n=1)
    hint = f"did you mean {close[0]}?" if close else "`marquee recipe` lists them all"
    return f"there is no setting {name!r}: {hint}"


def _problem(found: Any) -> str:
    name = ".".join(map(str, found["loc"]))
    said = found["msg"]
    return f"{name}: {said[0].lower()}{said[1:]}, not {found['input']!r}"
