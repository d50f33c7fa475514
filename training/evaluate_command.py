"""`marquee evaluate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from training.errors import UserError

if TYPE_CHECKING:
    from training.baselines import Scorer
    from training.data.dataset import Dataset
    from training.data.splits import Split
    from training.evaluate import Evaluation, Known
    from training.metrics import Interval

console = Console(stderr=True)

EVALUATE_HELP = """Rank the whole catalogue for every test user and measure the lists.

TARGET is a training run, whose models are judged on the test events that its split set aside, or
prepared data. A run keeps the result in evaluation.json. On data the baselines are judged, and
`two-tower` and `ranked` where `--models` names them: they are trained first, which takes minutes,
and not kept.

Examples:

- `marquee evaluate run/ --models two-tower,ranked,popularity,ease`
- `marquee evaluate run/ --report evaluation.html`
- `marquee evaluate data/ --protocol user-temporal --models two-tower,ease --k 10,50 --json`
"""
LEARNED = ("two-tower", "ranked")
METRICS = (
    "recall", "recall_min", "hit", "precision", "map", "mrr", "coverage", "gini", "diversity"
)  # fmt: skip
UNASKED = ("sasrec",)  # models that only --models brings in
_LONGEST_LIST = 10_000  # what a list of every test user's may take of the memory
_PIPE_WIDTH = 130  # columns of the table where there is no terminal to ask


@dataclass(frozen=True)
class Subject:
    """What is judged: a split of a data set, and the run that was trained on it, if any."""

    dataset: Dataset
    split: Split
    run: Path | None
    n_candidates: int  # what the run's ranker puts in order; 0 without a run


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("evaluate", help=EVALUATE_HELP)(evaluate_command)


def evaluate_command(
    target: Annotated[str, typer.Argument(metavar="RUN|DATA", help="A run or prepared data.")],
    protocol: Annotated[
        str | None,
        typer.Option(
            help="leave-one-out, user-temporal, user-random or global-temporal; "
            "a run's own, or leave-one-out for data."
        ),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Of two-tower, ranked (by the second stage), popularity, recent-popularity, "
            "ease, ials (tuned on VALIDATION), bpr, random and sasrec (RecTools', see `make "
            "rectools`); by default all that apply but sasrec.",
        ),
    ] = None,
    k: Annotated[str, typer.Option(metavar="K,...", help="Lengths of list.")] = "5,10,20,50,100",
    dump_to: Annotated[
        Path | None,
        typer.Option("--dump", metavar="DIR", help="Write the events and the lists as Parquet."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write one page with tables and plots."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, help="Draws iALS's start, the intervals and, for data, the split."),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Evaluate a run or the baselines."""
    from training.data.output import check_replaceable
    from training.evaluate import DUMP_MARKER, Known, dump, evaluate
    from training.evaluation_report import write_report

    ks = cutoffs(k)
    if dump_to is not None:
        check_replaceable(dump_to, DUMP_MARKER)
    with (
        trained_if_needed(target, protocol, models, seed) as judged,
        console.status("Reading and splitting the data") as status,
    ):
        subject = read_subject(judged, protocol, seed)
        names = model_names(subject, models)
        known = Known.of(subject.dataset, subject.split)
        scorers, notes = {}, {}
        for name in names:
            status.update(f"Fitting {name}" if name not in LEARNED else f"Loading {name}")
            scorers[name] = scorer(name, subject, known, seed, notes)
        status.update("Ranking the catalogue for every test user")
        compared = [("ranked", "two-tower")] if set(LEARNED) <= set(names) else []
        result = evaluate(
            subject.dataset, subject.split, scorers, ks=ks, compared=compared, seed=seed
        )
        document = result.to_json() | notes
        if subject.run is not None:
            document |= ranker_quality(subject.run)
            write_evaluation(subject.run, document)
        if report is not None:
            status.update(f"Writing {report}")
            write_report(result, document, subject.run, report)
        if dump_to is not None:
            status.update(f"Writing {dump_to}")
            dump(result, dump_to)
    if as_json:
        typer.echo(json.dumps(document))
    else:
        _print(result)


def cutoffs(text: str) -> list[int]:
    """The numbers of "5,10,20"; UserError unless they are whole, at least 1 and not too large."""
    try:
        ks = [int(part) for part in text.split(",")]
    except ValueError:
        ks = [0]
    if min(ks) < 1:
        raise UserError(f"--k {text!r} is not a list of lengths such as 5,10,20")
    if max(ks) > _LONGEST_LIST:
        raise UserError(f"--k {max(ks)}: lists are of at most {_LONGEST_LIST} items")
    return ks


@contextmanager
def trained_if_needed(
    target: str | Path, protocol: str | None, models: str | None, seed: int
) -> Iterator[str | Path]:
    """TARGET, or where learned models are asked of data, a run on it that lives until the end."""
    from training.data.dataset import load
    from training.data.splits import default_core
    from training.run import RECORD
    from training.train import Request, train

    asked = {name.strip() for name in (models or "").split(",")}
    if (Path(target) / RECORD).is_file() or not asked & set(LEARNED):
        yield target
        return
    address = load(target).address  # says so when it is not data
    chosen = protocol or "leave-one-out"
    with TemporaryDirectory(prefix="marquee-evaluate-") as directory:
        run = Path(directory) / "run"
        request = Request(
            address, run, 2, chosen, default_core(chosen), seed, epochs=None, resume=False
        )
        train(request, lambda line: console.print(line, markup=False, highlight=False))
        yield run


def read_subject(target: str | Path, protocol: str | None, seed: int) -> Subject:
    """The split that TARGET stands for.

    UserError when TARGET is neither a run nor data, or when the run knows the test events: those
    of another protocol than its own.
    """
    from training.data.dataset import load
    from training.data.splits import split
    from training.run import RECORD, Run

    directory = Path(target)
    if not (directory / RECORD).is_file():
        dataset = load(target)
        cut = split(dataset, protocol or "leave-one-out", seed=seed)
        return Subject(dataset, cut, run=None, n_candidates=0)
    run = Run.read(directory)
    if run.status != "finished":
        raise UserError(
            f"{target} is not finished (status {run.status!r}): go on with "
            f"`marquee train {run.data} --out {target} --resume`"
        )
    if protocol not in (None, run.protocol):
        raise UserError(
            f"{target} was trained under {run.protocol} and has seen test events of "
            f"{protocol}: train another run with --protocol {protocol}"
        )
    dataset = load(run.data)
    return Subject(dataset, run.split(dataset), directory, run.recipe.candidates)


def model_names(subject: Subject, text: str | None) -> list[str]:
    """The models asked for, each once; without `text` all that the subject allows."""
    from training.baselines import BASELINES, EASE_MAX_ITEMS

    baselines = (*BASELINES, *UNASKED)
    learned = LEARNED if subject.run is not None else ()
    if text is None:
        left_out = set(UNASKED)
        left_out |= set() if subject.dataset.has_time else {"recent-popularity"}
        if subject.dataset.n_items > EASE_MAX_ITEMS:
            left_out.add("ease")
        return [name for name in (*learned, *baselines) if name not in left_out]
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in (*LEARNED, *baselines):
            known = ", ".join((*LEARNED, *baselines))
            raise UserError(f"unknown model {name!r} in --models: choose from {known}")
        if name in LEARNED and not learned:
            raise UserError(f"{name} is learned: name it in --models or name a run")
    return names


def scorer(
    name: str, subject: Subject, known: Known, seed: int, notes: dict[str, Any] | None = None
) -> Scorer:
    """The model called `name`: a baseline fitted on what is known, or one of the run's.

    notes: told what the document should say of how it was made.
    """
    import numpy as np

    from training.baseline_tuning import tune_ials
    from training.baselines import BASELINES, ials
    from training.data.splits import TRAIN, VALIDATION
    from training.evaluate import RankedScorer, TowerScorer
    from training.inputs import catalogue_inputs, ranker_user_inputs
    from training.model.rankers import load_ranker
    from training.run import MODEL
    from training.sasrec import sasrec

    if name == "sasrec":
        return sasrec(known.events, seed)
    if name == "ials":
        settings, ndcg = tune_ials(subject.dataset, subject.split, seed)
        if notes is not None:
            notes["tuned"] = {"ials": vars(settings) | {"validation_ndcg@10": ndcg}}
        return ials(known.events, seed, settings)
    if subject.run is None or name in BASELINES:
        return BASELINES[name](known.events, seed)
    model_dir, dataset = subject.run / MODEL, subject.dataset
    tower = TowerScorer(model_dir, known)
    if name == "two-tower":
        return tower
    before_test = np.isin(subject.split.fold, (TRAIN, VALIDATION))
    vectors = np.load(model_dir / "item_vectors.npy")
    return RankedScorer(
        tower,
        known,
        load_ranker(model_dir),
        catalogue_inputs(dataset, vectors, before_test),
        ranker_user_inputs(dataset, before_test),
        subject.n_candidates,
    )


def ranker_quality(run: Path) -> dict[str, Any]:
    """`ranker`: its kind, gain over the tower, AUC and log loss by cross-fitting on VALIDATION."""
    from training.run import Run

    ranker = Run.read(run).ranker
    return {} if ranker is None else {"ranker": ranker}


def write_evaluation(run: Path, document: dict[str, Any]) -> None:
    """Keep an evaluation beside the run, where publishing finds it."""
    file = run / "evaluation.json"
    staging = file.with_name(f".{file.name}.new")
    staging.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    staging.replace(file)


def _cell(metrics: Mapping[str, Interval], name: str) -> str:
    """A metric's value, - where the data has none (diversity without genres)."""
    return f"{metrics[name].value:.4f}" if name in metrics else "-"


def _print(result: Evaluation) -> None:
    """One table for each length of list, on stdout."""
    out = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    for k in result.ks:
        title = f"{result.split.protocol}, {len(result.users):,} users, lists of {k}"
        table = Table("model", title=title, title_justify="left", box=None, pad_edge=False)
        for column in ("ndcg", "95% interval", *METRICS):
            table.add_column(column, justify="right", no_wrap=True)
        for name, metrics in result.metrics.items():
            ndcg = metrics[f"ndcg@{k}"]
            others = (_cell(metrics, f"{metric}@{k}") for metric in METRICS)
            interval = f"{ndcg.low:.4f}-{ndcg.high:.4f}"
            table.add_row(name, f"{ndcg.value:.4f}", interval, *others)
        out.print(table)
        for (model, other), gains in result.gains.items():
            out.print(f"{model} over {other}: ndcg {gains[f'ndcg@{k}'].as_gain}", highlight=False)
    out.print(f"split {result.split.hash}", highlight=False)
