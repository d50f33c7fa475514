"""`marquee evaluate --report`: an evaluation on one page that needs nothing beside it."""

import html
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from training.data.report import STYLE, svg, table, write_page
from training.evaluate import Evaluation
from training.metrics import Interval
from training.run import Run

COLUMNS = ("ndcg", "recall", "recall_min", "hit", "precision", "map", "mrr", "coverage", "gini",
           "diversity")  # fmt: skip
_FLOOR = "popularity"
_BAR = 0.8  # of the room between two ticks


def write_report(
    evaluation: Evaluation, document: dict[str, Any], run: Path | None, out: Path
) -> None:
    """Write the page to `out`. document: what `--json` prints. run: whose epochs are drawn.

    UserError when `out` cannot be written.
    """
    write_page(render(evaluation, document, None if run is None else Run.read(run)), out)


def render(evaluation: Evaluation, document: dict[str, Any], run: Run | None) -> str:
    """The whole page."""
    title = f"{evaluation.split.protocol}: {len(evaluation.users):,} users"
    figures = "\n".join(
        f"<figure><h2>{html.escape(name)}</h2><p>{html.escape(text)}</p>"
        f"{svg(figure, salt=str(index))}</figure>"
        for index, (name, text, figure) in enumerate(_figures(evaluation, run))
    )
    tables = "\n".join(f"<h2>Lists of {k}</h2>\n{_metrics(evaluation, k)}" for k in evaluation.ks)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{STYLE}</style>
<h1>{html.escape(title)}</h1>
{table(_overview(evaluation, document))}
<div class="plots">
{figures}
</div>
{tables}
<h2>Slices, lists of {_middle(evaluation.ks)}</h2>
{_slices(evaluation)}
</html>
"""


def _overview(evaluation: Evaluation, document: dict[str, Any]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        ("protocol", evaluation.split.protocol),
        ("split", evaluation.split.hash),
        ("k-core", evaluation.split.k_core),
        ("seed", evaluation.seed),
        ("items that can be recommended", evaluation.n_recommendable),
    ]
    if ranker := document.get("ranker"):
        gain = ranker["ndcg@10_gain"]
        found = f"{ranker['kind']}, {ranker['users']:,} users of VALIDATION"
        if gain is not None:
            found += (
                f", NDCG@10 {Interval(**gain).as_gain}, "
                f"AUC {ranker['auc']:.4f}, log loss {ranker['log_loss']:.5f}"
            )
        rows.append(("ranker", found))
    rows += [
        (f"{model} over {other}, NDCG@{k}", gains[f"ndcg@{k}"].as_gain)
        for (model, other), gains in evaluation.gains.items()
        for k in evaluation.ks
    ]
    for model, settings in document.get("tuned", {}).items():
        rows.append((f"{model}, tuned", ", ".join(f"{k} {v:g}" for k, v in settings.items())))
    return rows


def _figures(evaluation: Evaluation, run: Run | None) -> Iterator[tuple[str, str, Figure]]:
    """Title, how to read it, and the drawing."""
    yield "NDCG by length of list", "With its 95% interval.", _by_k(evaluation, "ndcg", _value)
    yield "Recall by length of list", "Hits over relevant.", _by_k(evaluation, "recall", _value)
    if _FLOOR in evaluation.metrics:
        yield (
            "NDCG against popularity",
            "How many times popularity's.",
            _by_k(evaluation, "ndcg", _over_popularity),
        )
    yield (
        "Long tail",
        "Share of the lists that the items up to a place in the order of popularity take; the "
        "dashed line is what the users did.",
        _long_tail(evaluation),
    )
    for by in dict.fromkeys(part["by"] for part in next(iter(evaluation.slices.values()))):
        yield f"NDCG by {by}", f"Lists of {_middle(evaluation.ks)}.", _by_slice(evaluation, by)
    if run is not None and run.epochs:
        yield "Learning", "Loss, and NDCG@10 on VALIDATION, by epoch.", _learning(run)


def _value(evaluation: Evaluation, model: str, metric: str) -> np.ndarray:
    """value, low, high of a metric, [3]."""
    interval = evaluation.metrics[model][metric]
    return np.array([interval.value, interval.low, interval.high])


def _over_popularity(evaluation: Evaluation, model: str, metric: str) -> np.ndarray:
    floor = evaluation.metrics[_FLOOR][metric].value
    return _value(evaluation, model, metric) / max(floor, 1e-12)


def _by_k(
    evaluation: Evaluation, metric: str, read: Callable[[Evaluation, str, str], np.ndarray]
) -> Figure:
    figure, axes = _figure("length of list", metric)
    for model in evaluation.metrics:
        rows = np.array([read(evaluation, model, f"{metric}@{k}") for k in evaluation.ks])
        axes.plot(evaluation.ks, rows[:, 0], marker="o", markersize=3, label=model)
        axes.fill_between(evaluation.ks, rows[:, 1], rows[:, 2], alpha=0.15)
    axes.set_xscale("log")
    axes.set_xticks(evaluation.ks, [str(k) for k in evaluation.ks])
    axes.minorticks_off()
    axes.legend(fontsize="x-small", frameon=False)
    return figure


def _long_tail(evaluation: Evaluation) -> Figure:
    figure, axes = _figure("items, most popular first", "share")
    data, catalogue = evaluation.dataset, evaluation.split.catalogue
    events = np.bincount(data.item, minlength=data.n_items)[catalogue]
    order = np.argsort(-events, kind="stable")
    place = np.arange(1, len(order) + 1) / len(order)
    k = _middle(evaluation.ks)
    for model, lists in evaluation.lists.items():
        shown = lists.items[:, :k]
        counts = np.bincount(shown[shown >= 0], minlength=data.n_items)[catalogue]
        axes.plot(place, np.cumsum(counts[order]) / max(counts.sum(), 1), label=model)
    axes.plot(place, np.cumsum(events[order]) / events.sum(), "--", color="black", linewidth=1)
    axes.legend(fontsize="x-small", frameon=False)
    return figure


def _by_slice(evaluation: Evaluation, by: str) -> Figure:
    figure, axes = _figure("", "ndcg")
    metric = f"ndcg@{_middle(evaluation.ks)}"
    width = _BAR / len(evaluation.slices)
    names: list[str] = []
    for index, (model, parts) in enumerate(evaluation.slices.items()):
        chosen = [part for part in parts if part["by"] == by and part["users"]]
        names = [f"{part['name']}\n{part['users']:,} users" for part in chosen]
        values = [part["metrics"][metric]["value"] for part in chosen]
        at = np.arange(len(chosen)) + (index - (len(evaluation.slices) - 1) / 2) * width
        axes.bar(at, values, width=width, label=model)
    axes.set_xticks(range(len(names)), names, fontsize="small")
    axes.legend(fontsize="x-small", frameon=False)
    return figure


def _learning(run: Run) -> Figure:
    figure, axes = _figure("epoch", "loss")
    epochs = [epoch.epoch for epoch in run.epochs]
    axes.plot(epochs, [epoch.loss for epoch in run.epochs], color="tab:gray", marker="o")
    right = axes.twinx()
    right.plot(epochs, [epoch.ndcg for epoch in run.epochs], color="tab:blue", marker="o")
    right.set_ylabel("NDCG@10", color="tab:blue")
    if run.best_epoch is not None:
        right.axvline(run.best_epoch, color="tab:blue", linestyle=":", linewidth=1)
    return figure


def _figure(x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _metrics(evaluation: Evaluation, k: int) -> str:
    rows: list[tuple[object, ...]] = [("model", "interval of NDCG", *COLUMNS)]
    for model, metrics in evaluation.metrics.items():
        ndcg = metrics[f"ndcg@{k}"]
        values = [metrics.get(f"{name}@{k}") for name in COLUMNS]
        cells = ("-" if value is None else f"{value.value:.4f}" for value in values)
        rows.append((model, f"{ndcg.low:.4f} to {ndcg.high:.4f}", *cells))
    return table(rows)


def _slices(evaluation: Evaluation) -> str:
    k = _middle(evaluation.ks)
    rows: list[tuple[object, ...]] = [("model", "by", "slice", "users", "NDCG", "recall", "hit")]
    for model, parts in evaluation.slices.items():
        for part in parts:
            figures = part["metrics"]
            cells = (
                f"{figures[f'{name}@{k}']['value']:.4f}" if figures else "-"
                for name in ("ndcg", "recall", "hit")
            )
            rows.append((model, part["by"], part["name"], part["users"], *cells))
    return table(rows)


def _middle(ks: tuple[int, ...]) -> int:
    """The length at which lists are looked at closely: 10 where it was asked for."""
    return 10 if 10 in ks else ks[len(ks) // 2]
