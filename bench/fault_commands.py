"""`marquee bench faults` and `marquee bench load`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.status import Status
from rich.table import Table

from bench import processes
from training.errors import UserError

console = Console(stderr=True)


def faults(
    store: Annotated[
        str, typer.Option(help="Directory or s3:// with published bundles.")
    ] = ".marquee/demo/store",
    only: Annotated[
        str, typer.Option(metavar="NAME,...", help="Some of the faults, in this order.")
    ] = "",
    rate: Annotated[
        float, typer.Option(min=1, help="Requests per second beside every fault.")
    ] = 100.0,
    replicas: Annotated[int, typer.Option(min=1, help="Of each deployment.")] = 2,
    before_s: Annotated[float, typer.Option(min=0, help="Load before a fault, seconds.")] = 5.0,
    after_s: Annotated[float, typer.Option(min=0, help="Load after its end, seconds.")] = 15.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Hurt the served product under load and count what its users notice.

    Serves two versions of the store's production bundle on a free port with an empty state, and
    ends it. Exit status 1 when something happened that must not: docs/faults.md says what.

    Example: marquee bench faults --only valkey-killed,gateway-killed --json
    """
    from bench.faults.run import NAMES, Conditions, bench_faults

    names = tuple(name.strip() for name in only.split(",") if name.strip()) or NAMES
    if unknown := [name for name in names if name not in NAMES]:
        raise UserError(f"--only: no fault {unknown[0]!r}; there are {', '.join(NAMES)}")
    conditions = Conditions(rate, before_s, after_s, replicas)
    with (
        processes.ending_with_this_process(),
        redirect_stdout(sys.stderr),
        console.status("") as status,
    ):
        figures = bench_faults(_production(store), names, conditions, _report(status))
    if as_json:
        typer.echo(json.dumps(figures))
    else:
        _print(figures["faults"])
    raise typer.Exit(0 if figures["held"] else 1)


def load(
    scenario: Annotated[
        str, typer.Option(help="normal, peak, stress or autoscale: docs/load-test.md.")
    ] = "normal",
    store: Annotated[
        str, typer.Option(help="Directory with published bundles.")
    ] = ".marquee/demo/store",
    duration_s: Annotated[
        float | None, typer.Option(min=5, help="Instead of the scenario's own, seconds.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw rate and latency into this file (svg, png).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run a load test with Locust against the service, which is started and ended for it.

    Example: marquee bench load --scenario peak --plot peak.svg
    """
    from bench.load_scenarios import SCENARIOS
    from bench.load_test import draw, load_test

    if scenario not in SCENARIOS:
        raise UserError(f"--scenario {scenario!r}: there are {', '.join(SCENARIOS)}")
    _production(store)
    with (
        processes.ending_with_this_process(),
        redirect_stdout(sys.stderr),
        console.status("") as status,
    ):
        figures = load_test(store, scenario, duration_s, _report(status))
    if plot is not None:
        draw(figures, plot)
    if as_json:
        typer.echo(json.dumps(figures))
        return
    names = ("requests", "failures", "per_s", "p50_ms", "p95_ms", "p99_ms")
    table = Table("", *names)
    for kind in ("slate", "feedback"):
        table.add_row(kind, *(str(figures[kind][name]) for name in names))
    Console().print(table)


def _report(status: Status) -> Callable[[str], None]:
    """Shows what is done now; where nobody watches, as in CI, a line each."""
    return status.update if console.is_terminal else console.print


def _production(store: str) -> Any:
    from app.adapters.store import bundle_store
    from app.settings import Settings
    from training.model.bundle import Bundle, BundleError

    try:
        found = bundle_store(Settings(store=store))
        version = found.production()
        if version is None:
            raise UserError(f"{store} has no published version; run `marquee publish RUN --store`")
        return Bundle.open(found.locate(version))
    except (BundleError, OSError, ValueError) as error:
        raise UserError(str(error)) from None


def _print(faults: dict[str, dict[str, Any]]) -> None:
    columns = ("errors", "refused", "degraded", "recovery_s", "feedback_lost", "mixed_versions")
    table = Table("fault", "answered", *columns, "p99_ms", "held")
    for name, figures in faults.items():
        cells = (figures.get(column, "") for column in columns)
        answered = figures.get("answered", figures.get("served"))
        held = "yes" if figures["held"] else "no"
        table.add_row(name, str(answered), *map(str, cells), str(figures["p99_ms"]), held)
    Console().print(table)
