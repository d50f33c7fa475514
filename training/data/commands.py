"""`marquee data synth`, `fetch` and `report`, and `marquee prepare`."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from training.errors import UserError

if TYPE_CHECKING:
    from training.data.sources import Source

console = Console(stderr=True)

PREPARE_HELP = """Check a table of events, order it by user, split it and write it as Parquet.

INPUT is a directory with a MovieLens data set of any published shape, a dataset.yaml (or a
directory that holds one), or csv or Parquet, gzipped or not, one file or a directory of them,
whose columns --user and --item name. INPUT, OUT and all others may be s3:// addresses. Rejected
rows are kept in rejects.parquet. --append adds new events to an OUT that was prepared before.

Examples:

- `marquee prepare ml-latest-small data/`
- `marquee prepare plays.csv data/ --user listener --item song --time played_at`
- `marquee prepare s3://logs/plays/ data/ --user listener --item song --items songs.parquet`
- `marquee prepare --append monday.csv data/ --user listener --item song --time played_at`
- `marquee prepare --append log/ data/`
- `marquee prepare ml-latest-small s3://lake/data`
"""
SYNTH_HELP = """Write a MovieLens-shaped data set with planted taste, or one of a given size.

--like makes one of a published data set's size and proportions, to measure with; --scale makes
it larger or smaller. It has no taste to be learnt.

Examples:

- `marquee data synth raw/ --users 2000 --items 1500 --events 150000 --seed 7`
- `marquee data synth raw/ --like ml-25m`
"""
FETCH_HELP = """Download a MovieLens data set by its name.

Names: ml-latest-small, ml-latest, ml-100k, ml-1m, ml-10m, ml-20m, ml-25m, ml-32m.

Example: `marquee data fetch ml-1m raw/`
"""

REPORT_HELP = """Draw a prepared data set on one page of HTML that needs nothing beside it.

Example: `marquee data report data/ --out report.html`
"""

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    data = typer.Typer(help="Get data to prepare, and look at it.", no_args_is_help=True)
    data.command("synth", help=SYNTH_HELP)(synth)
    data.command("fetch", help=FETCH_HELP)(fetch)
    data.command("report", help=REPORT_HELP)(report_on)
    app.add_typer(data, name="data")
    app.command("prepare", help=PREPARE_HELP)(prepare)


def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The directory to write.")],
    users: Annotated[int, typer.Option(help="Number of users.")] = 2_000,
    items: Annotated[int, typer.Option(help="Number of items.")] = 1_500,
    events: Annotated[int, typer.Option(help="Number of ratings.")] = 150_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 0,
    like: Annotated[
        str | None, typer.Option(help="Imitate the size of a data set: ml-1m or ml-25m.")
    ] = None,
    scale: Annotated[
        float, typer.Option(min=0.001, help="With --like: times its users and events.")
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Write a synthetic data set."""
    from dataclasses import asdict

    from training.data.synthetic import write_synthetic

    with _steps() as report:
        report("Inventing users, items and ratings")
        if like is not None:
            _synth_like(out, like, scale, seed, as_json)
            return
        planted = write_synthetic(out, users=users, items=items, events=events, seed=seed)
    if as_json:
        typer.echo(json.dumps({"out": str(out), "planted": asdict(planted)}))
    else:
        typer.echo(f"{out}: {events:,} ratings of {items:,} items by {users:,} users, seed {seed}")


def _synth_like(out: Path, like: str, scale: float, seed: int, as_json: bool) -> None:
    from dataclasses import asdict

    from training.data.lookalike import write_lookalike

    shape = write_lookalike(out, like, scale=scale, seed=seed)
    if as_json:
        typer.echo(json.dumps({"out": str(out), "like": like, **asdict(shape)}))
    else:
        typer.echo(
            f"{out}: {shape.events:,} ratings of {shape.items:,} items by {shape.users:,} users, "
            f"like {like}, seed {seed}"
        )


def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A MovieLens data set.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The directory to write.")],
    mirror: Annotated[
        str | None, typer.Option(help="URL of a folder with the archives, instead of GroupLens.")
    ] = None,
) -> None:
    """Download a data set."""
    from training.data.fetch import GROUPLENS
    from training.data.fetch import fetch as download

    with _steps() as report:

        def progress(done: int, total: int | None) -> None:
            of = f" of {total / 1e6:.1f}" if total else ""
            report(f"Downloading {name}: {done / 1e6:.1f}{of} MB")

        report(f"Downloading {name}")
        download(name, out, mirror=mirror or GROUPLENS, progress=progress)
    typer.echo(f"{out}: {', '.join(sorted(path.name for path in out.glob('[!.]*')))}")


def report_on(
    path: Annotated[str, typer.Argument(metavar="DATA", help="What `marquee prepare` wrote.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("report.html"),
) -> None:
    """Report on a prepared data set."""
    from training.data.report import write_report

    with _steps() as report:
        report(f"Looking at {path}")
        size = write_report(path, out)
    typer.echo(f"{out}: {size / 1e6:.1f} MB")


def prepare(
    paths: Annotated[list[str], typer.Argument(metavar="[INPUT] OUT", show_default=False)],
    events: Annotated[str | None, typer.Option(help="A file or directory of events.")] = None,
    append: Annotated[
        str | None, typer.Option(metavar="NEW", help="Add the events of NEW to those of OUT.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Column of the user's id.")] = None,
    item: Annotated[str | None, typer.Option(help="Column of the item's id.")] = None,
    rating: Annotated[str | None, typer.Option(help="Column of the rating, if any.")] = None,
    time: Annotated[
        str | None, typer.Option(help="Column of the time: unix seconds or ISO 8601 (UTC).")
    ] = None,
    items: Annotated[
        str | None,
        typer.Option(help="A csv or Parquet file of items, with the same id column."),
    ] = None,
    rating_range: Annotated[
        str | None, typer.Option(metavar="LO,HI", help="Ratings outside are rejected.")
    ] = None,
    max_rejects: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of events that may be rejected.")
    ] = 0.01,
    erasures: Annotated[
        str | None, typer.Option(metavar="LOG", help="Leave out the erased users of an event log.")
    ] = None,
    text_features: Annotated[
        bool, typer.Option(help="Embed the items' titles, categories and tags.")
    ] = False,
    cpus: Annotated[
        int | None, typer.Option(min=1, help="Cores to use; by default all of them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prepare a data set."""
    from training.data.event_log import leave_out
    from training.data.prepare import prepare as run
    from training.data.remote import output

    path, out = _input_and_output(paths, events, append)
    columns = {"--user": user, "--item": item, "--rating": rating, "--time": time}
    options = {**columns, "--items": items, "--rating-range": rating_range}
    with (
        TemporaryDirectory(prefix="marquee-log-") as aside,
        _steps() as report,
        output(out, append=append is not None) as directory,
    ):
        source = _log_source(path, options, Path(aside), directory if append else None)
        if source is None:
            source = _source(path, options)
            source = leave_out(source, erasures) if erasures is not None else source
        statistics = run(
            source,
            directory,
            append=append is not None,
            text_features=text_features,
            max_rejects=max_rejects,
            cpus=cpus,
            report=report,
        )
    if as_json:
        typer.echo(json.dumps(statistics))
    else:
        Console().print(_statistics_table(out, statistics))


def _input_and_output(paths: list[str], events: str | None, append: str | None) -> tuple[str, str]:
    """What to read and where to write; --append and --events may stand for INPUT."""
    from training.data.locations import file_size, is_directory, join

    out = paths[-1]
    named = [*paths[:-1], *([append] if append else []), *([events] if events else [])]
    if len(paths) > 2 or not named or len(named) > 2 or (append and len(named) > 1):
        raise UserError("name INPUT and OUT, such as `marquee prepare ml-latest-small data/`")
    path = named[-1]
    if len(named) == 2 and file_size(path) is None and not is_directory(path):
        path = join(named[0], path)  # --events names a file inside INPUT
    if file_size(path) is None and not is_directory(path):
        raise UserError(f"{path} does not exist: name a data set's directory or a file")
    return path, out


def _log_source(
    path: str, options: dict[str, Any], aside: Path, into: Path | None
) -> "Source | None":
    """The service's event log as a source, None when there is none at `path`."""
    from training.data.event_log import is_log, log_source

    if any(value is not None for value in options.values()) or not is_log(path):
        return None
    source = log_source(path, aside, into=into)
    if source is None:
        raise UserError(f"{path} has no events to learn from that are not in {into or 'it'} yet")
    return source


def _source(path: str, options: dict[str, Any]) -> "Source":
    """A MovieLens directory, a dataset.yaml, or events with the options that describe them."""
    from training.data.locations import is_directory
    from training.data.mapping import described_source, find_mapping
    from training.data.sources import CatalogueFile, generic

    given = [name for name, value in options.items() if value is not None]
    described = options["--user"] is not None or options["--item"] is not None
    if not described and (find_mapping(path) is not None or is_directory(path)):
        if given:
            raise UserError(
                f"{given[0]} describes events together with --user and --item: name these too, "
                f"or leave {given[0]} out for a MovieLens directory or a dataset.yaml"
            )
        return described_source(path)
    for name in ("--user", "--item"):
        if options[name] is None:
            raise UserError(f"{name} COL is missing: name the column in {path}")
    items = options["--items"]
    return generic(
        path,
        user=options["--user"],
        item=options["--item"],
        rating=options["--rating"],
        time=options["--time"],
        catalogue=CatalogueFile(items, "columns", options["--item"]) if items else None,
        rating_range=_range(options["--rating-range"]),
    )


def _range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise UserError(f"--rating-range {text!r} is not two numbers such as 1,5") from None
    if not low < high:
        raise UserError(f"--rating-range {text!r} is empty: the lower bound comes first")
    return low, high


def _statistics_table(out: str, statistics: dict[str, Any]) -> Table:
    table = Table(title=f"{out} ({statistics['shape']})", show_header=False)
    for name, count in statistics["counts"].items():
        table.add_row(name.replace("_", " "), f"{count:,}")
    table.add_row("sparsity", f"{statistics['sparsity']:.4f}")
    if rating := statistics["rating"]:
        table.add_row("rating", f"{rating['mean']:.2f} ± {rating['std']:.2f}")
    if undescribed := statistics["items_without_description"]:
        table.add_row("items without description", f"{undescribed:,}")
    for reason, count in statistics["rejected"].items():
        table.add_row(f"rejected: {reason}", f"{count:,}")
    return table


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """A spinner on stderr with the step at hand and the time so far; it leaves no line behind."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda step: bar.update(task, description=step)
