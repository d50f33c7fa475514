import json

import pytest
import typer
from typer.testing import CliRunner

from training.data.commands import register
from training.errors import UserError


def _run(*arguments):
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _refused(message, *arguments):
    result = _run(*arguments)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert result.stdout == ""


def test_synth_writes_the_data_set_and_reports_it_as_json(tmp_path):
    size = ("--users", 30, "--items", 40, "--events", 300, "--seed", 5)
    result = _run("data", "synth", tmp_path / "raw", *size, "--json")
    planted = json.loads(result.stdout)["planted"]
    assert (planted["users"], planted["events"], planted["seed"]) == (30, 300, 5)
    assert (tmp_path / "raw" / "ratings.csv").exists()


def test_synth_refuses_a_directory_with_something_else_in_it(tmp_path):
    (tmp_path / "mine.txt").touch()
    _refused("not written by this command", "data", "synth", tmp_path)


def test_fetch_without_a_network_names_the_alternative(tmp_path):
    out = tmp_path / "raw"
    _refused("marquee data synth", "data", "fetch", "ml-1m", out, "--mirror", "http://127.0.0.1:1")


@pytest.mark.parametrize("command", [("data", "synth"), ("data", "fetch"), ("prepare",)])
def test_every_command_has_help_with_an_example(command):
    result = _run(*command, "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert "marquee " + " ".join(command) in result.stdout


def test_prepare_says_what_is_missing(tmp_path):
    plays = tmp_path / "plays.csv"
    plays.write_text("who,song,stars\nu1,s1,4\n")
    out, columns = tmp_path / "out", ("--user", "who", "--item", "song")
    _refused("name INPUT and OUT", "prepare", out)
    _refused("gone does not exist", "prepare", tmp_path / "gone", out)
    _refused("no MovieLens data set", "prepare", tmp_path, out)
    _refused("--user COL is missing", "prepare", plays, out)
    _refused("--item COL is missing", "prepare", plays, out, "--user", "who")
    _refused("no column 'when'", "prepare", plays, out, *columns, "--time", "when")
    _refused("items.csv does not exist", "prepare", plays, out, *columns, "--items", "items.csv")
    _refused("not two numbers", "prepare", plays, out, *columns, "--rating-range", "5")
    _refused("the lower bound", "prepare", plays, out, *columns, "--rating-range", "5,1")
    assert not out.exists()


def test_columns_are_not_for_a_movielens_directory(tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,3,4\n")
    _refused(
        "--time describes events together",
        "prepare",
        tmp_path,
        tmp_path / "o",
        "--time",
        "timestamp",
    )
