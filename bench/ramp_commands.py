"""`marquee bench ramp` and `marquee bench autoscale`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from training.errors import UserError

console = Console(stderr=True)

Clients = Annotated[str, typer.Option(metavar="N,...", help="Concurrent clients of each step.")]
Step = Annotated[float, typer.Option(min=1, help="Length of a step, seconds.")]
Settle = Annotated[float, typer.Option(help="Watch this long after the load, seconds.")]
Plot = Annotated[Path | None, typer.Option(help="Draw the timeline into this file (svg, png).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def ramp(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where the service answers.")],
    clients: Clients = "2,64,64,2",
    step_s: Step = 30.0,
    settle_s: Settle = 0.0,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Count the pods of a release there.")
    ] = None,
    release: Annotated[str, typer.Option(help="Name of that Helm release.")] = "marquee",
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Load a running service with more and then fewer clients.

    Example: marquee bench ramp http://localhost:8000 --clients 2,64,2 -n recsys
    """
    from bench.ramp import ramp as run

    observe = _pods(namespace, release) if namespace else dict
    result = run(url, clients_of(clients), step_s, observe, settle_s=settle_s)
    _show(result, plot, as_json)


def autoscale(
    store: Annotated[str, typer.Option(help="Directory with published bundles.")],
    clients: Clients = "2,96,96,2",
    step_s: Step = 20.0,
    settle_s: Settle = 40.0,
    max_nodes: Annotated[int, typer.Option(min=1, help="Ray worker nodes, at most.")] = 3,
    downscale_delay_s: Annotated[float, typer.Option(help="Instead of the chart's.")] = 8.0,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Watch Serve's replicas and Ray's nodes follow the load, on this machine.

    Runs the chart's Serve config (k8s/) on Ray's autoscaler, whose nodes are processes here.

    Example: marquee bench autoscale --store store/ --plot timeline.svg
    """
    from bench.autoscale import autoscale as run

    result = run(
        store,
        clients_of(clients),
        step_s,
        max_nodes=max_nodes,
        downscale_delay_s=downscale_delay_s,
        settle_s=settle_s,
    )
    _show(result, plot, as_json)


def clients_of(text: str) -> tuple[int, ...]:
    """The numbers of "1,16,64"; UserError unless they are whole and at least 1."""
    try:
        clients = tuple(int(part) for part in text.split(","))
    except ValueError:
        clients = ()
    if not clients or min(clients) < 1:
        raise UserError(f"--clients {text!r} is not a list of numbers such as 1,16,64")
    return clients


def draw(timeline: list[dict[str, Any]], file: Path) -> None:
    """Clients, replicas and nodes over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (load, scale) = pyplot.subplots(2, 1, sharex=True, figsize=(8, 5))
    at_s = [point["at_s"] for point in timeline]
    load.step(at_s, [point["clients"] for point in timeline], where="post", color="black")
    load.set_ylabel("clients")
    for stage in timeline[-1].get("replicas", {}):
        counts = [point["replicas"].get(stage, 0) for point in timeline]
        scale.step(at_s, counts, where="post", label=stage)
    for what in ("nodes", "pods"):
        if what in timeline[-1]:
            counts = [point[what] for point in timeline]
            scale.step(at_s, counts, where="post", label=what, linewidth=3, alpha=0.5)
    scale.set_ylabel("running")
    scale.set_xlabel("seconds")
    if scale.get_legend_handles_labels()[0]:
        scale.legend(ncols=5, fontsize="small")
    figure.tight_layout()
    figure.savefig(file)
    pyplot.close(figure)


def _pods(namespace: str, release: str) -> Any:
    from app.cluster import ClusterError, Release

    try:
        found = Release.connect(
            namespace=namespace, name=release, service=release, kubeconfig=None, context=None
        )
    except ClusterError as error:
        raise UserError(str(error)) from None

    def observe() -> dict[str, Any]:
        return {"pods": sum(pod.phase == "Running" for pod in found.pods("serve-worker"))}

    return observe


def _show(result: dict[str, Any], plot: Path | None, as_json: bool) -> None:
    if plot is not None:
        draw(result["timeline"], plot)
    if as_json:
        typer.echo(json.dumps(result))
        return
    table = Table("clients", "req/s", "p50 ms", "p95 ms", "p99 ms", "errors")
    for step in result["steps"]:
        names = ("clients", "rps", "p50_ms", "p95_ms", "p99_ms", "errors")
        table.add_row(*(str(step[name]) for name in names))
    Console().print(table)
