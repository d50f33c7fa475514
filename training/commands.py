"""`marquee train`, and the registration of `marquee evaluate` beside it."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training import evaluate_command

console = Console(stderr=True)

TRAIN_HELP = """Train the two towers and the ranker on prepared data.

A checkpoint follows every epoch: a run that was killed goes on with `--resume`. Epochs and settings
go to MLflow (MLFLOW_TRACKING_URI, or mlflow.db in the current directory).

Examples:

- `marquee train data/ --out run/`
- `marquee train data/ --out run/ --protocol user-temporal --workers 4 --json`
- `marquee train data/ --out run/ --resume`
"""


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("train", help=TRAIN_HELP)(train_command)
    evaluate_command.register(app)


def train_command(
    data: Annotated[Path, typer.Argument(help="What `marquee prepare` wrote.")],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Directory of the run.")],
    workers: Annotated[int, typer.Option(help="Ray Train workers.")] = 2,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the events, at most; by default the recipe's.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="What is held out: leave-one-out (the default), user-temporal, user-random or "
            "global-temporal."
        ),
    ] = None,
    k_core: Annotated[
        int | None,
        typer.Option(help="Leave out users and items with fewer events; by default none."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random; 0 by default.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint of RUN.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the run's record as one JSON document.")
    ] = False,
) -> None:
    """Train a run."""
    from training.train import Request, train

    request = Request(data, out, workers, protocol, k_core, seed, epochs, resume)
    with console.status("Reading and splitting the data") as status:

        def report(line: str) -> None:
            console.print(line, markup=False, highlight=False)
            status.update("Training")

        run = train(request, report)
    if as_json:
        typer.echo(json.dumps(run.model_dump()))
    else:
        typer.echo(f"{out}: {len(run.epochs)} epochs, the best is {run.best_epoch}")
