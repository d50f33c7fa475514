"""`marquee tune`."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console(stderr=True)

TUNE_HELP = """Search for better settings of the tower and write them as a recipe file.

Trials train on the events before VALIDATION and are judged on VALIDATION; those that fall behind
are stopped early. The first trial is the recipe that the others start from. OUT/recipe.yaml is for
`marquee train --recipe`, OUT/trials.json says what was tried, MLflow has every epoch.

Examples:

- `marquee tune data/ --out tuning/ --trials 20`
- `marquee tune data/ --out tuning/ --trials 20 --resume`
- `marquee train data/ --out run/ --recipe tuning/recipe.yaml`
"""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("tune", help=TUNE_HELP)(tune_command)


def tune_command(
    data: Annotated[str, typer.Argument(help="What `marquee prepare` wrote, s3:// or local.")],
    out: Annotated[Path, typer.Option(metavar="OUT", help="Directory of the tuning.")],
    trials: Annotated[int, typer.Option(help="Trainings in all.")] = 20,
    protocol: Annotated[
        str,
        typer.Option(help="leave-one-out, user-temporal, user-random or global-temporal."),
    ] = "leave-one-out",
    k_core: Annotated[
        int, typer.Option(min=0, help="Leave out users and items with fewer events.")
    ] = 0,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of a trial, at most; by default the recipe's.")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The recipe to start from; see `marquee recipe`."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the tuning in OUT.")] = False,
    at_once: Annotated[
        int | None,
        typer.Option(min=1, help="Trials at the same time; by default one for each CPU."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the trials as one JSON document.")
    ] = False,
) -> None:
    """Tune a recipe."""
    from training.tune import RECIPE, TuneRequest, tune

    request = TuneRequest(
        data, out, trials, protocol, k_core, seed, epochs, recipe, resume, at_once
    )

    def report(line: str) -> None:
        console.print(line, markup=False, highlight=False)

    with redirect_stdout(sys.stderr):  # Ray Tune prints to stdout
        found = tune(request, report)
    if as_json:
        typer.echo(json.dumps([vars(trial) for trial in found]))
    else:
        typer.echo(f"{out / RECIPE}: validation NDCG@10 {found[0].ndcg:.4f}, {len(found)} trials")
