"""`marquee train`, and the registration of `marquee evaluate` beside it."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training import evaluate_command, tune_command
from training.errors import UserError
from training.worker_options import Checkpoints, Gpu, MaxFailures, MinWorkers, WorkerCount

console = Console(stderr=True)

TRAIN_HELP = """Train the two towers and the ranker on prepared data.

A checkpoint follows every epoch: lost workers are replaced and go on from it, a run that was killed
goes on with `--resume`. Epochs and settings go to MLflow (MLFLOW_TRACKING_URI, or mlflow.db in the
current directory).

Examples:

- `marquee train data/ --out run/`
- `marquee train data/ --out run/ --protocol user-temporal --workers 4 --json`
- `marquee train data/ --out run/ --recipe recipe.yaml`
- `marquee train data/ --out run/ --workers 4 --min-workers 2 --checkpoints s3://models/checkpoints`
- `marquee train data/ --out run/ --resume`
"""
RECIPE_HELP = """Print a recipe file: every setting of a training, each under what it is.

Any of them can be left out of a file; `marquee train --recipe` fills them in.

Example: `marquee recipe --protocol user-random > recipe.yaml`
"""


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("train", help=TRAIN_HELP)(train_command)
    app.command("recipe", help=RECIPE_HELP)(recipe_command)
    evaluate_command.register(app)
    tune_command.register(app)


def train_command(
    data: Annotated[str, typer.Argument(help="What `marquee prepare` wrote, s3:// or local.")],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Directory of the run.")],
    workers: WorkerCount = None,
    min_workers: MinWorkers = None,
    max_failures: MaxFailures = 3,
    checkpoints: Checkpoints = None,
    gpu: Gpu = None,
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
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings as YAML or JSON; see `marquee recipe`."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint of RUN.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the run's record as one JSON document.")
    ] = False,
) -> None:
    """Train a run."""
    from training.train import Request, train

    request = Request(
        data,
        out,
        workers,
        protocol,
        k_core,
        seed,
        epochs,
        resume,
        recipe,
        min_workers,
        max_failures,
        checkpoints,
        gpu,
    )
    with console.status("Reading and splitting the data") as status:

        def report(line: str) -> None:
            console.print(line, markup=False, highlight=False)
            status.update("Training")

        run = train(request, report)
    if as_json:
        typer.echo(json.dumps(run.model_dump()))
    else:
        typer.echo(f"{out}: {len(run.epochs)} epochs, the best is {run.best_epoch}")


def recipe_command(
    protocol: Annotated[
        str, typer.Option(help="The protocol whose recipe it is.")
    ] = "leave-one-out",
) -> None:
    """Print a recipe file."""
    from training.data.splits import PROTOCOLS
    from training.recipe import recipe_for
    from training.recipe_file import recipe_text

    if protocol not in PROTOCOLS:
        raise UserError(f"unknown protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")
    typer.echo(recipe_text(recipe_for(protocol)), nl=False)
