"""`marquee bench train`, `losses`, `rankers` and `cold`: training and what its choices bring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from training.errors import UserError

console = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]
Data = Annotated[Path, typer.Argument(metavar="DATA", help="What `marquee prepare` wrote.")]
Protocol = Annotated[
    str, typer.Option(help="leave-one-out, user-temporal, user-random or global-temporal.")
]


def register(bench: typer.Typer) -> None:
    """Add the commands to `marquee bench`."""
    for command in (train, losses, rankers, cold):
        bench.command()(command)


def train(
    events: Annotated[
        str, typer.Option(metavar="N,...", help="Sizes of the made-up data sets, growing.")
    ] = "1000000,5000000",
    items: Annotated[int, typer.Option(min=10, help="Items in each of them.")] = 3_700,
    sasrec_events: Annotated[
        int,
        typer.Option(
            min=0,
            help="Events that RecTools' SASRec (`make rectools`) and our transformer of its size "
            "learn an epoch from; 0 leaves both out.",
        ),
    ] = 200_000,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another recipe than the default.")
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure an epoch: events/s, FLOP/s against matrix products alone, growth, RecTools.

    Example: marquee bench train --events 200000 --json
    """
    from bench.train import bench_train
    from training.recipe import recipe_for
    from training.recipe_file import read_recipe

    sizes = tuple(_at_least(text, 1_000, "--events") for text in events.split(","))
    protocol = "leave-one-out"
    chosen = read_recipe(recipe, protocol) if recipe else recipe_for(protocol)
    figures = bench_train(
        sizes,
        items=items,
        compared_events=sasrec_events,
        recipe=chosen,
        seed=seed,
        report=_say,
    )
    if as_json:
        typer.echo(json.dumps(figures))
        return
    _table(figures["sizes"].values())
    for name in ("growth", "sasrec"):
        if name in figures:
            Console().print(f"{name}: {figures[name]}", highlight=False)


def losses(
    data: Data,
    names: Annotated[
        str | None, typer.Option("--losses", metavar="NAME,...", help="By default all.")
    ] = None,
    protocol: Protocol = "leave-one-out",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the events for each.")] = 4,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Train the tower with each loss for as many epochs and judge it on the test events.

    Example: marquee bench losses data/ --losses softmax,bpr --epochs 2
    """
    from bench.losses import LOSSES, bench_losses

    figures = bench_losses(
        data,
        losses=tuple(names.split(",")) if names else LOSSES,
        protocol=protocol,
        epochs=epochs,
        seed=seed,
        report=_say,
    )
    if as_json:
        typer.echo(json.dumps(figures))
        return
    _table(
        {"loss": loss, "train_s": found["train_s"], **_values(found["test"])}
        for loss, found in figures["losses"].items()
    )


def rankers(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished `marquee train`.")],
    kinds: Annotated[
        str, typer.Option(metavar="NAME,...", help="Of the recipe's `ranker`.")
    ] = "lambdamart,xgboost,dcn-v2,deepfm",
    users: Annotated[
        int | None, typer.Option(min=10, help="Validation users, drawn; by default all.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Ray Train workers of the deep ones.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Cross-fit every kind of ranker on a run's candidates: gain over the tower, and cost.

    Example: marquee bench rankers run/ --kinds lambdamart,xgboost
    """
    from bench.rankers import KINDS, bench_rankers

    chosen = tuple(kinds.split(","))
    if unknown := [kind for kind in chosen if kind not in KINDS]:
        raise UserError(f"--kinds {unknown[0]!r} is unknown: choose of {', '.join(KINDS)}")
    figures = bench_rankers(run, kinds=chosen, workers=workers, most_users=users, report=_say)
    if as_json:
        typer.echo(json.dumps(figures))
        return
    _table({"ranker": kind, **_flat(row)} for kind, row in figures["rankers"].items())


def cold(
    data: Data,
    share: Annotated[
        float, typer.Option(min=0.001, max=0.9, help="Of the items, taken out of training.")
    ] = 0.1,
    protocol: Protocol = "user-temporal",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the events.")] = 4,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Another recipe than the protocol's with unseen_by_features, taken as it is.",
        ),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Take items out of training entirely and measure how well they are found by features alone.

    Example: marquee bench cold data/ --share 0.1 --epochs 2
    """
    from bench.cold import bench_cold
    from training.recipe_file import read_recipe

    figures = bench_cold(
        data,
        protocol=protocol,
        share=share,
        epochs=epochs,
        recipe=read_recipe(recipe, protocol) if recipe else None,
        seed=seed,
        report=_say,
    )
    if as_json:
        typer.echo(json.dumps(figures))
        return
    for name, models in figures["among"].items():
        Console().print(f"among {name}", highlight=False)
        _table({"model": model, **_values(row)} for model, row in models.items())


def _say(line: str) -> None:
    console.print(line, markup=False, highlight=False)


def _at_least(text: str, least: int, option: str) -> int:
    if not text.strip().isdecimal() or int(text) < least:
        raise UserError(f"{option} {text!r}: a whole number of at least {least:,} is needed")
    return int(text)


def _values(metrics: dict[str, dict[str, float]]) -> dict[str, str]:
    return {
        name: f"{found['value']:.4f} ({found['low']:.4f}-{found['high']:.4f})"
        for name, found in metrics.items()
    }


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose intervals are texts."""
    intervals = {name: cell for name, cell in row.items() if isinstance(cell, dict)}
    return {**row, **_values(intervals)}


def _table(rows: Any) -> None:
    """Rows of the same keys, on stdout; a key that a row lacks is -."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*names, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(row.get(name, "-")) for name in names))
    Console(width=None if Console().is_terminal else 130).print(table)
