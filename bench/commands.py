"""`marquee bench serve` and `prepare`; the others are registered beside them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from subprocess import CalledProcessError
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bench import fault_commands, processes, ramp_commands, training_commands
from bench.ramp_commands import clients_of
from training.errors import UserError

if TYPE_CHECKING:
    from app.settings import Settings
    from bench.serve import Workload

console = Console(stderr=True)


def register(app: typer.Typer) -> None:
    """Add the benchmarks to the root command."""
    bench = typer.Typer(help="Measure the running product.", no_args_is_help=True)
    bench.command("serve")(serve)
    bench.command("prepare")(prepare)
    bench.command("profile")(profile)
    bench.command("faults")(fault_commands.faults)
    bench.command("load")(fault_commands.load)
    bench.command("ramp")(ramp_commands.ramp)
    bench.command("autoscale")(ramp_commands.autoscale)
    training_commands.register(bench)
    app.add_typer(bench, name="bench")


def serve(
    store: Annotated[
        str, typer.Option(help="Directory or s3:// with published bundles.")
    ] = ".marquee/demo/store",
    duration_s: Annotated[
        float, typer.Option(min=0.1, help="Time of one measurement, seconds.")
    ] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, help="Times that all is measured.")] = 2,
    clients: Annotated[
        str, typer.Option(help="Concurrent clients of the closed loop, comma-separated.")
    ] = "1,16,64,128",
    rate: Annotated[
        float, typer.Option(min=0.1, help="Arrivals of the open loop, requests per second.")
    ] = 100.0,
    stress_rate: Annotated[
        float, typer.Option(min=0.1, help="Arrivals of a second open loop, requests per second.")
    ] = 500.0,
    compare: Annotated[
        bool, typer.Option(help="Also start `topology: fused` and Serve's stock settings.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure the served bundle against an endpoint that does nothing, on the same ingress.

    Starts the service as `marquee serve` does, on a free port, and ends it; then once more with
    all stages in one replica, and as Serve runs the graph without HAProxy and without batches.

    Example: marquee bench serve --store .marquee/demo/store --json
    """
    from app.local import StartError
    from app.settings import Settings
    from bench.serve import Workload, bench_serve

    numbers = clients_of(clients)
    workload = Workload(
        duration_s=duration_s,
        rounds=rounds,
        clients=numbers,
        arrivals_per_s=rate,
        stress_arrivals_per_s=stress_rate,
        stream_clients=64 if 64 in numbers else max(numbers),
    )
    with (
        processes.ending_with_this_process(),
        redirect_stdout(sys.stderr),  # Ray prints warnings of its processes to stdout
        console.status("") as status,
    ):
        try:
            # A few users ask for thousands of slates: the limit of one user is not the subject.
            settings = Settings(store=store, rate_limit_per_minute=0)
            figures = bench_serve(settings, workload, status.update)
            if compare:
                figures |= _others(settings, workload, figures, status.update)
        except StartError as error:
            raise UserError(str(error)) from None
    if as_json:
        typer.echo(json.dumps(figures))
    else:
        _print(figures)


def _others(
    settings: Settings, workload: Workload, figures: dict[str, Any], report: Callable[[str], None]
) -> dict[str, Any]:
    """`fused` and `stock`: the service started in two other ways, a round of each."""
    from bench import comparison

    clients = workload.stream_clients
    short = replace(workload, rounds=1, clients=tuple(sorted({1, clients})))
    try:
        report("topology: fused")
        fused = comparison.measure(comparison.fused(settings, short))
        report("the graph on stock settings")
        stock = comparison.measure(comparison.stock(settings, short))
    except CalledProcessError:
        raise UserError("the service did not start in another way; see above") from None
    mine, others = (f["closed"]["uncached"][str(clients)]["rps"] for f in (figures, stock))
    stock["times_slower"] = round(mine / others, 2) if others else None
    return {"fused": fused, "stock": stock}


def profile(
    store: Annotated[
        str, typer.Option(help="Directory or s3:// with published bundles.")
    ] = ".marquee/demo/store",
    topology: Annotated[str, typer.Option(help="graph or fused.")] = "graph",
    clients: Annotated[int, typer.Option(min=1, help="Concurrent clients.")] = 64,
    duration_s: Annotated[
        float, typer.Option(min=1, help="Time of one measurement, seconds.")
    ] = 8.0,
    stacks: Annotated[
        Path | None, typer.Option(help="Keep py-spy's stacks in this folder, for flame graphs.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show where an uncached request's CPU goes: per process, and per part of each replica.

    Times are from /proc, parts from py-spy, which must be allowed to look into processes: run as
    root, or with kernel.yama.ptrace_scope=0.

    Example: marquee bench profile --store .marquee/demo/store
    """
    from app.local import StartError
    from app.settings import Settings
    from bench.profile import ProfileError, profile_serve

    if topology not in ("graph", "fused"):
        raise UserError(f"--topology: {topology!r} is neither graph nor fused")
    with (
        processes.ending_with_this_process(),
        redirect_stdout(sys.stderr),
        console.status("") as status,
    ):
        try:
            figures = profile_serve(
                Settings.model_validate(
                    {"store": store, "topology": topology, "rate_limit_per_minute": 0}
                ),
                clients=clients,
                duration_s=duration_s,
                report=status.update,
                stacks=stacks,
            )
        except (StartError, ProfileError) as error:
            raise UserError(str(error)) from None
    if as_json:
        typer.echo(json.dumps(figures))
        return
    table = Table("process", "CPU ms per request", "of which")
    for name, used in figures["cpu_ms_per_request"].items():
        parts = figures["parts"].get(name, {})
        shares = ", ".join(f"{part} {share:.0%}" for part, share in parts.items())
        table.add_row(name, f"{used:.3f}", shares)
    Console().print(table)


def prepare(
    like: Annotated[str, typer.Option(help="Data set to imitate: ml-1m or ml-25m.")] = "ml-25m",
    scale: Annotated[float, typer.Option(min=0.001, help="Times its users and events.")] = 1.0,
    engines: Annotated[
        str, typer.Option(help="Comma-separated, in order; those not installed are left out.")
    ] = "ray,polars,pyspark",
    cpus: Annotated[
        str,
        typer.Option(help="Cores that each engine gets; 1,2: Marquee is measured with one, too."),
    ] = "2",
    folder: Annotated[
        Path, typer.Option(help="Where to write: needs about 100 bytes an event.")
    ] = Path("/tmp"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure `marquee prepare` beside Polars and PySpark on a made-up data set.

    Example: marquee bench prepare --like ml-25m --json
    """
    from bench.prepare import bench_prepare

    chosen = tuple(name.strip() for name in engines.split(",") if name.strip())
    with console.status("") as status:
        figures = bench_prepare(
            like,
            scale=scale,
            engines=chosen,
            cpus=_counts(cpus),
            folder=folder,
            report=status.update,
        )
    if as_json:
        typer.echo(json.dumps(figures))
        return
    table = Table("engine", "seconds", "CPU s", "events/s", "peak MB", "ray / engine")
    for engine in (*chosen, *(name for name in figures if name.startswith("ray_cpus_"))):
        if cell := figures.get(engine):
            row = (cell.get(name, "-") for name in ("seconds", "cpu_s", "events_per_s", "peak_mb"))
            table.add_row(engine, *map(str, row), str(figures["ratios"].get(engine, "")))
    Console().print(table)


def _counts(text: str) -> tuple[int, ...]:
    counts = tuple(int(part) for part in text.split(",") if part.strip().isdecimal())
    if len(counts) != text.count(",") + 1 or min(counts) < 1:
        raise UserError(f"--cpus {text!r} is not a number of cores, or several such as 1,2")
    return counts


def _print(figures: dict[str, Any]) -> None:
    table = Table("load", "mode", "req/s", "p50 ms", "p95 ms", "p99 ms", "errors", "of empty")
    for mode, by_clients in figures["closed"].items():
        for clients, cell in by_clients.items():
            share = figures["ratios"].get(f"{mode}_{clients}", "")
            table.add_row(f"{clients} clients", mode, *_row(cell), str(share))
    for rate, by_mode in figures["open"].items():
        for mode in figures["closed"]:
            table.add_row(f"{rate}/s", mode, *_row(by_mode[mode]), "")
    stream = figures["realistic"]
    share = str(stream["of_empty"])
    table.add_row(f"{stream['clients']} clients", "realistic", *_row(stream), share)
    for name in ("fused", "stock"):
        if name in figures:
            for clients, cell in figures[name]["closed"]["uncached"].items():
                share = str(figures[name]["ratios"].get(f"uncached_{clients}", ""))
                table.add_row(f"{clients} clients", f"uncached, {name}", *_row(cell), share)
    console = Console()
    console.print(table)
    costs = figures["stages"]["16"].items()
    console.print("ms a query, batch of 16:", ", ".join(f"{k[:-3]} {v:.3f}" for k, v in costs))
    console.print(f"memory {figures['memory']['pss_mb']} MB, started in {figures['started_s']} s")


def _row(cell: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(cell[name]) for name in ("rps", "p50_ms", "p95_ms", "p99_ms", "errors"))
