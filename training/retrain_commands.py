"""`marquee retrain` and `marquee wait`: what the cluster's jobs run."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training.errors import UserError
from training.publish_commands import AsJson, StoreUrl, reaching, register_in_mlflow
from training.worker_options import Checkpoints, Gpu, MaxFailures, MinWorkers, WorkerCount

console = Console(stderr=True)

RETRAIN_HELP = """Train on data and let the result answer if it is good enough.

Prepares, trains, evaluates, publishes and promotes. Exit status 3 and nothing published when
the new model does not beat popularity, or falls behind the version that answers.

Examples:

- `marquee retrain --store store/ --work work/ --only-if-empty`
- `marquee retrain --store s3://models/marquee --work work/ --input ratings/ --max-drop 0.02`
- `marquee retrain --store store/ --work work/ --input ratings/ --log log/`
"""
WAIT_HELP = """Wait until a store has a version that answers.

Example: `marquee wait --store s3://models/marquee --timeout-s 3600`
"""
GATE_CLOSED = 3


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("retrain", help=RETRAIN_HELP)(retrain)
    app.command("wait", help=WAIT_HELP)(wait)


def retrain(
    store: StoreUrl,
    work: Annotated[Path, typer.Option(help="Directory for data and run, which is overwritten.")],
    raw: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="A MovieLens directory or a dataset.yaml; without it a synthetic set.",
        ),
    ] = None,
    log: Annotated[
        str | None, typer.Option(help="Event log whose events are learnt from as well.")
    ] = None,
    users: Annotated[int, typer.Option(help="Users of the synthetic set.")] = 2_000,
    items: Annotated[int, typer.Option(help="Items of the synthetic set.")] = 1_500,
    events: Annotated[int, typer.Option(help="Ratings of the synthetic set.")] = 150_000,
    workers: WorkerCount = None,
    min_workers: MinWorkers = None,
    max_failures: MaxFailures = 3,
    checkpoints: Checkpoints = None,
    gpu: Gpu = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the events, at most; by default the recipe's.")
    ] = None,
    max_drop: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of production's NDCG@10 that may go.")
    ] = 0.05,
    only_if_empty: Annotated[
        bool, typer.Option("--only-if-empty", help="Do nothing when a version answers already.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Retrain."""
    from training.publish import publish
    from training.retrain import GateClosed, Plan, check_gate, make_run, production_manifest
    from training.store import Store

    plan = Plan(
        work,
        raw,
        users,
        items,
        events,
        workers,
        epochs,
        max_drop,
        log,
        min_workers,
        max_failures,
        checkpoints,
        gpu,
    )
    with reaching(store):
        target = Store.open(store)
        production = production_manifest(target)
        if only_if_empty and production is not None:
            _say(f"{store}: version {production.version} answers already")
            return
        plan.work.mkdir(parents=True, exist_ok=True)
        evaluation = make_run(plan, _say)
        try:
            verdict = check_gate(evaluation, production, max_drop)
        except GateClosed as closed:
            _say(f"not published: {closed}")
            raise typer.Exit(GATE_CLOSED) from None
        _say(f"good enough: {verdict}")
        published = publish(work / "run", target, promote=True, report=_say)
        register_in_mlflow(target, published.manifest, production=True)
    version = published.manifest.version
    if as_json:
        typer.echo(json.dumps({"store": store, "version": version, "verdict": verdict}))
    else:
        typer.echo(f"{store}: version {version} answers now")


def wait(
    store: StoreUrl,
    timeout_s: Annotated[float, typer.Option(help="Longest wait, seconds.")] = 3600.0,
    every_s: Annotated[float, typer.Option(min=0.01, help="Time between looks.")] = 2.0,
) -> None:
    """Wait for the first version; a store that is away for a while is waited for as well."""
    from training.store import Store

    target = Store.open(store)
    deadline = time.monotonic() + timeout_s
    said = ""
    while True:
        try:
            version, reason = target.production(), "nothing is published yet"
        except OSError as error:
            version, reason = None, str(error).splitlines()[0]
        if version is not None:
            typer.echo(f"{store}: version {version}")
            return
        if reason != said:
            _say(f"{store}: {reason}; waiting")
            said = reason
        if time.monotonic() >= deadline:
            raise UserError(f"store {store} has no version after {timeout_s:g} s: {reason}")
        time.sleep(every_s)


def _say(line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
