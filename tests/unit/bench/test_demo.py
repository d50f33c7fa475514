import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from bench.demo import Demo, check_port, demo, own_directory, stages
from bench.processes import descendants
from training.errors import UserError

FAKE = Path(__file__).with_name("fake_marquee.py")


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def calls(tmp_path, monkeypatch):
    log = tmp_path / "calls"
    monkeypatch.setenv("FAKE_LOG", str(log))
    return lambda: [json.loads(line) for line in log.read_text().splitlines()]


def fake_demo(tmp_path, port, data=None):
    plan = stages(tmp_path / "demo", data, small=False)
    return Demo(tmp_path / "demo", port, plan, marquee=(sys.executable, str(FAKE)))


def test_the_demo_calls_the_stages_in_order_and_reports_what_they_found(
    tmp_path, port, calls, capsys
):
    fake_demo(tmp_path, port).run(once=True, as_json=True)
    assert [call[0] for call in calls()] == [
        "data", "prepare", "train", "evaluate", "publish", "serve",
    ]  # fmt: skip
    report = json.loads(capsys.readouterr().out)
    assert list(report["stages_s"]) == [
        "synth", "prepare", "train", "evaluate", "publish", "serve",
    ]  # fmt: skip
    assert report["models"]["two-tower"]["ndcg@10"]["value"] == 0.5
    assert report["slate"]["recommendations"][0]["title"] == "Alien"
    assert f"http://127.0.0.1:{port}/api/v1/recommendations/ann" in report["curl"]


def test_the_demo_prints_the_table_the_url_and_one_curl(tmp_path, port, calls, capsys):
    fake_demo(tmp_path, port).run(once=True, as_json=False)
    printed = capsys.readouterr().out
    for text in ("two-tower", "0.400-0.600", f"http://127.0.0.1:{port}/", "curl -s"):
        assert text in printed
    assert "Alien; [Heat]" in printed  # a title in brackets is not markup


def test_given_data_is_prepared_in_place_of_synthetic_data(tmp_path, port, calls):
    fake_demo(tmp_path, port, data=Path("ml")).run(once=True, as_json=True)
    assert calls()[0][:2] == ["prepare", "ml"]


def test_what_every_stage_writes_the_next_one_reads(tmp_path):
    synth, prepare, train, evaluate, publish = stages(tmp_path, None, small=False)
    assert prepare.arguments[1] == synth.arguments[2]
    assert train.arguments[1] == prepare.arguments[2]
    assert evaluate.arguments[1] == publish.arguments[1] == train.arguments[3]


def test_a_stage_that_fails_ends_the_demo_with_its_status(
    tmp_path, port, calls, monkeypatch, capfd
):
    monkeypatch.setenv("FAKE_FAIL", "train")
    with pytest.raises(typer.Exit) as ended:
        fake_demo(tmp_path, port).run(once=True, as_json=True)
    assert ended.value.exit_code == 2
    assert [call[0] for call in calls()] == ["data", "prepare", "train"]
    assert "error: it broke" in capfd.readouterr().err


def test_a_service_that_does_not_start_ends_the_demo(tmp_path, port, calls, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "serve")
    with pytest.raises(typer.Exit) as ended:
        fake_demo(tmp_path, port).run(once=False, as_json=True)
    assert ended.value.exit_code == 2


@pytest.fixture
def process(tmp_path, port, calls):
    """The demo as a command of its own, with the fake sub-commands.

    SIGINT is ignored at its start, as a shell script does to what it starts in the background.
    """
    script = f"""
from functools import partial
import typer
from bench import demo, processes

processes._TERMINATE_GRACE_S = 0.5
demo.Demo = partial(demo.Demo, marquee=({sys.executable!r}, {str(FAKE)!r}))
app = typer.Typer()
demo.register(app)
app(["--workdir", {str(tmp_path / "demo")!r}, "--port", "{port}"])
"""
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c", script]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.terminate()


@pytest.fixture
def hanging_in_training(monkeypatch):
    monkeypatch.setenv("FAKE_HANG", "train")


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_also_what_a_stage_put_in_the_background(
    hanging_in_training, process, tmp_path, sent
):
    pid_file = tmp_path / "calls.pid"
    wait_for(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
    background = int(pid_file.read_text())
    assert background in descendants(process.pid)
    process.send_signal(sent)
    assert process.wait(120) == 130
    assert "interrupted" in process.stderr.read()
    with pytest.raises(ProcessLookupError):
        os.kill(background, 0)


def test_ctrl_c_while_serving_ends_the_service_and_is_no_failure(process, port):
    lines = iter(process.stderr.readline, "")
    assert any("serving until Ctrl-C" in line for line in lines)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 0
    check_port(port)


def test_a_port_in_use_is_said_before_anything_is_written(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="choose another with --port"):
            demo(workdir=tmp_path / "demo", port=taken.getsockname()[1])
    assert not (tmp_path / "demo").exists()


def test_data_that_does_not_exist_is_said_before_anything_is_written(tmp_path, port):
    with pytest.raises(UserError, match="nowhere does not exist"):
        demo(data=tmp_path / "nowhere", workdir=tmp_path / "demo", port=port)
    assert not (tmp_path / "demo").exists()


def test_a_demo_starts_afresh_where_a_demo_was(tmp_path):
    for _ in range(2):
        with own_directory(tmp_path / "demo"):
            assert [path.name for path in (tmp_path / "demo").iterdir()] == [".marquee-demo"]
            (tmp_path / "demo" / "store").mkdir()
            (tmp_path / "demo" / "mlflow.db").touch()


def test_a_directory_that_no_demo_wrote_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="no demo wrote"), own_directory(tmp_path):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_two_demos_do_not_share_a_directory(tmp_path):
    with (
        own_directory(tmp_path / "demo"),
        pytest.raises(UserError, match="another demo is running"),
        own_directory(tmp_path / "demo"),
    ):
        pass
    with (tmp_path / "demo" / ".marquee-demo").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
