import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from training.data.output import staged_directory
from training.errors import UserError


def _write(out, text="new"):
    with staged_directory(out, marker="mark") as staging:
        (staging / "mark").write_text(text)


def test_the_directory_appears_with_its_parents_when_the_block_ends(tmp_path):
    out = tmp_path / "a" / "b"
    with staged_directory(out, marker="mark") as staging:
        assert not out.exists()
        (staging / "mark").write_text("x")
    assert [path.name for path in out.parent.iterdir()] == ["b"]


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    _write(out, "old")
    with pytest.raises(RuntimeError), staged_directory(out, marker="mark") as staging:
        (staging / "mark").write_text("new")
        raise RuntimeError
    assert (out / "mark").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_directory_of_the_same_command_is_replaced_whole(tmp_path):
    out = tmp_path / "out"
    _write(out, "old")
    (out / "left over").touch()
    _write(out)
    assert [path.name for path in out.iterdir()] == ["mark"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_directory_may_be_written_to(tmp_path):
    (tmp_path / "out").mkdir()
    _write(tmp_path / "out")
    assert (tmp_path / "out" / "mark").read_text() == "new"


def test_what_a_person_put_there_is_never_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(UserError, match="not written by this command"):
        _write(tmp_path / "out")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="not a directory"):
        _write(tmp_path / "file")


def test_a_link_to_a_directory_stays_a_link(tmp_path):
    _write(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    _write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "mark").read_text() == "new"


def test_a_parent_that_is_a_file_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write in .*file"):
        _write(tmp_path / "file" / "out")


def test_a_place_where_nothing_can_be_made_is_one_clear_line():
    with pytest.raises(UserError, match="cannot write in /proc: No such file"):
        _write(Path("/proc/out"))


def test_a_killed_run_leaves_the_output_of_before_and_can_be_run_again(tmp_path):
    out = tmp_path / "out"
    _write(out, "old")
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from training.data.output import staged_directory\n"
        "with staged_directory(Path(sys.argv[1]), marker='mark') as staging:\n"
        "    (staging / 'mark').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    killed = subprocess.run([sys.executable, "-c", code, str(out)], env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert (out / "mark").read_text() == "old"
    _write(out)
    assert (out / "mark").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_killed_between_its_two_renames_gives_the_old_output_back(tmp_path):
    out = tmp_path / "out"
    _write(out, "old")
    out.rename(tmp_path / ".out.old")
    with pytest.raises(RuntimeError), staged_directory(out, marker="mark"):
        raise RuntimeError
    assert (out / "mark").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_runs_do_not_write_the_same_output(tmp_path):
    with (
        staged_directory(tmp_path / "out", marker="mark"),
        pytest.raises(UserError, match="another run is writing"),
        staged_directory(tmp_path / "out", marker="mark"),
    ):
        pass
