"""`marquee demo`: from ratings to an answering service, one sub-command after the other."""

from __future__ import annotations

import fcntl
import json
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Annotated, Any
from urllib.request import urlopen

import typer
from rich.console import Console
from rich.table import Table

from bench import processes
from training.errors import UserError

console = Console(stderr=True)

_MARKER = ".marquee-demo"
_MODELS = "two-tower,ranked,popularity"
_SHOWN_METRICS = ("hit@10", "recall@10", "coverage@10")
# On synthetic data more epochs than these gain next to nothing.
_SYNTHETIC_EPOCHS = "8"
_SMALL_DATA = ("--users", "300", "--items", "300", "--events", "15000")
_SMALL_EPOCHS = "2"


def register(app: typer.Typer) -> None:
    """Add `marquee demo` to the root command."""
    app.command()(demo)


def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="A MovieLens directory; without it a synthetic data set is made."),
    ] = None,
    workdir: Annotated[
        Path, typer.Option(help="Where everything is written; emptied at the start.")
    ] = Path(".marquee/demo"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port to answer on.")] = 8000,
    small: Annotated[
        bool, typer.Option("--small", help="A smaller data set and fewer epochs, to try it out.")
    ] = False,
    once: Annotated[
        bool, typer.Option("--once", help="Ask for one slate and end, instead of serving on.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print stage times, metrics and one slate as JSON.")
    ] = False,
) -> None:
    """Prepare, train, evaluate, publish and serve; then say where it answers.

    Serves until Ctrl-C, which ends everything that was started.

    Example: marquee demo --data ml-latest-small --port 8000
    """
    if data is not None and not data.exists():
        raise UserError(f"{data} does not exist; leave --data out for a synthetic data set")
    check_port(port)
    with own_directory(workdir), processes.ending_with_this_process():
        try:
            Demo(workdir, port, stages(workdir, data, small)).run(once=once, as_json=as_json)
        except KeyboardInterrupt:
            console.print("interrupted; ending what was started")
            raise typer.Exit(130) from None


@dataclass(frozen=True)
class Stage:
    """A sub-command of `marquee`."""

    name: str
    arguments: tuple[str, ...]


def stages(workdir: Path, data: Path | None, small: bool) -> list[Stage]:
    """The sub-commands before serving, in running order."""
    raw, prepared, run = workdir / "raw", workdir / "data", workdir / "run"
    synth = Stage("synth", ("data", "synth", str(raw), *(_SMALL_DATA if small else ())))
    epochs = _SMALL_EPOCHS if small else _SYNTHETIC_EPOCHS if data is None else None
    training = ("--epochs", epochs) if epochs else ()
    return [
        *([synth] if data is None else []),
        Stage("prepare", ("prepare", str(data or raw), str(prepared))),
        Stage("train", ("train", str(prepared), "--out", str(run), *training)),
        Stage("evaluate", ("evaluate", str(run), "--models", _MODELS, "--json")),
        Stage("publish", ("publish", str(run), "--store", str(workdir / "store"))),
    ]


@dataclass
class Demo:
    """One run of the demo."""

    workdir: Path
    port: int
    stages: list[Stage]
    marquee: tuple[str, ...] = (sys.executable, "-m", "training.cli")
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, *, once: bool, as_json: bool) -> None:
        """All stages, then the service. Raises typer.Exit with the status of one that failed."""
        evaluation = self._prepare_to_publish()
        with self._service() as service:
            report = self._report(evaluation)
            if as_json:
                typer.echo(json.dumps(report))
            else:
                _print(report)
            if once:
                return
            try:
                console.print("serving until Ctrl-C", style="bold")
                _exit_unless_zero(service.wait())
            except KeyboardInterrupt:
                console.print("ending the service")

    def _prepare_to_publish(self) -> dict[str, Any]:
        printed = {stage.name: self._carry_out(stage) for stage in self.stages}
        evaluation: dict[str, Any] = json.loads(printed["evaluate"])
        return evaluation

    def _carry_out(self, stage: Stage) -> str:
        """What the sub-command prints; its progress goes to the terminal by itself."""
        with self._timed(stage.name):
            process = self._start(stage.arguments, PIPE)
            try:
                printed, _ = process.communicate()
            finally:
                processes.end(process)
            _exit_unless_zero(process.returncode)
        return printed

    @contextmanager
    def _service(self) -> Iterator[Popen[str]]:
        store, state = str(self.workdir / "store"), str(self.workdir / "state")
        arguments = ("serve", "--store", store, "--state-dir", state, "--port", str(self.port))
        process = self._start(arguments, DEVNULL)
        try:
            with self._timed("serve"):
                self._wait_until_ready(process)
            yield process
        finally:
            processes.end(process)

    def _wait_until_ready(self, process: Popen[str]) -> None:
        while process.poll() is None:
            try:
                _get(f"{self.url}/ready")
            except OSError:
                time.sleep(0.1)
            else:
                return
        _exit_unless_zero(process.returncode or 1)

    def _start(self, arguments: tuple[str, ...], stdout: int) -> Popen[str]:
        tracking = f"sqlite:///{(self.workdir / 'mlflow.db').resolve()}"
        return processes.start(
            [*self.marquee, *arguments], {"MLFLOW_TRACKING_URI": tracking}, stdout=stdout
        )

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        console.rule(f"{len(self.seconds) + 1}/{len(self.stages) + 1} {name}", align="left")
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 1)
        console.print(f"{name} took {self.seconds[name]} s", style="green", highlight=False)

    def _report(self, evaluation: dict[str, Any]) -> dict[str, Any]:
        user_id = _get(f"{self.url}/users?limit=1")["users"][0]
        slate_url = f"{self.url}/api/v1/recommendations/{user_id}?limit=5"
        return {
            "stages_s": self.seconds,
            "total_s": round(sum(self.seconds.values()), 1),
            "protocol": evaluation["protocol"],
            "split_hash": evaluation["split_hash"],
            "models": evaluation["models"],
            "url": self.url,
            "curl": f"curl -s '{slate_url}'",
            "slate": _get(slate_url),
        }


def _get(url: str) -> Any:
    with urlopen(url, timeout=10) as response:
        return json.load(response)


def _exit_unless_zero(status: int) -> None:
    """The sub-command has said in one line what is wrong."""
    if status:
        raise typer.Exit(status if status > 0 else 128 - status)


def _print(report: dict[str, Any]) -> None:
    out = Console()
    metrics = Table(title=f"Quality ({report['protocol']})", title_justify="left")
    metrics.add_column("model")
    for name in ("ndcg@10", "95% interval", *_SHOWN_METRICS):
        metrics.add_column(name, justify="right", no_wrap=True)
    for model, measured in report["models"].items():
        ndcg = measured["ndcg@10"]
        interval = f"{ndcg['low']:.3f}-{ndcg['high']:.3f}"
        others = (f"{measured[name]['value']:.3f}" for name in _SHOWN_METRICS)
        metrics.add_row(model, f"{ndcg['value']:.3f}", interval, *others)
    out.print(metrics)
    took = ", ".join(f"{name} {seconds} s" for name, seconds in report["stages_s"].items())
    out.print(f"{took}; {report['total_s']} s in all", highlight=False)
    user_id = report["slate"]["user_id"]
    titles = [item["title"] for item in report["slate"]["recommendations"]]
    out.print(f"for user {user_id}: {'; '.join(titles)}", markup=False, highlight=False)
    out.print(f"page  {report['url']}/", soft_wrap=True)
    out.print(f"API   {report['url']}/docs", soft_wrap=True)
    out.print(f"try   {report['curl']}", soft_wrap=True, markup=False, highlight=False)


def check_port(port: int) -> None:
    """Raises UserError when nothing can listen there: better now than after the training."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(
                f"cannot listen on port {port}: {error.strerror}; choose another with --port"
            ) from None


@contextmanager
def own_directory(workdir: Path) -> Iterator[None]:
    """An empty directory that only this demo uses. Empties it only when a demo made it."""
    marker = workdir / _MARKER
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir} is not a directory; choose another with --workdir")
    if workdir.exists() and any(workdir.iterdir()) and not marker.exists():
        raise UserError(f"{workdir} holds files that no demo wrote; choose another with --workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    with marker.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"another demo is running in {workdir}; end it or choose another with --workdir"
            ) from None
        for path in workdir.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path != marker:
                path.unlink()
        yield
