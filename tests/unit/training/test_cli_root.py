from types import SimpleNamespace

import pytest
import typer

from training import cli
from training.errors import UserError


def _run(monkeypatch, capsys, *arguments):
    def register(app: typer.Typer) -> None:
        @app.command("fail")
        def fail() -> None:
            raise UserError("ratings.csv: row [7] is bad: " + "x" * 200)

        @app.command("work")
        def work() -> None:
            typer.echo("done")

    entry = SimpleNamespace(name="part", load=lambda: register)
    monkeypatch.setattr(cli, "entry_points", lambda group: [entry] if group else [])
    monkeypatch.setattr("sys.argv", ["marquee", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, capsys.readouterr()


def test_a_user_error_is_one_line_on_stderr_and_status_2(monkeypatch, capsys):
    status, output = _run(monkeypatch, capsys, "fail")
    assert status == 2
    assert output.out == ""
    assert output.err == "error: ratings.csv: row [7] is bad: " + "x" * 200 + "\n"


def test_a_registered_command_runs(monkeypatch, capsys):
    status, output = _run(monkeypatch, capsys, "work")
    assert (status, output.out) == (0, "done\n")


def test_an_unknown_command_is_status_2_without_a_traceback(monkeypatch, capsys):
    status, output = _run(monkeypatch, capsys, "wrok")
    assert status == 2
    assert "Traceback" not in output.err
