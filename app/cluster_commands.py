"""`marquee k8s status|promote|rollback|logs`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from app.cluster import Release

console = Console(stderr=True)

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Of the release.")]
Name = Annotated[str, typer.Option("--release", help="Name of the Helm release.")]
Service = Annotated[
    str, typer.Option("--service", help="Name of the RayService; by default the release's.")
]
Kubeconfig = Annotated[str | None, typer.Option(help="Instead of KUBECONFIG's.")]
Context = Annotated[str | None, typer.Option(help="Of the kubeconfig, instead of its own choice.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Timeout = Annotated[float, typer.Option(help="Longest wait until it answers, seconds.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the root command."""
    k8s = typer.Typer(help="A release on Kubernetes.", no_args_is_help=True)
    k8s.command()(status)
    k8s.command()(promote)
    k8s.command()(rollback)
    k8s.command()(logs)
    app.add_typer(k8s, name="k8s")


def status(
    namespace: Namespace = "default",
    release: Name = "marquee",
    service: Service = "",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """Whether the service is ready, which version answers, and the pods behind it.

    Exit status 1 when it is not ready.

    Example: marquee k8s status -n recsys
    """
    with _release(namespace, release, service, kubeconfig, context) as found:
        seen = found.status()
    if as_json:
        typer.echo(json.dumps(asdict(seen)))
    else:
        state = "ready" if seen.ready else f"not ready: {seen.reason}"
        typer.echo(f"{release}: {state}; version {seen.model_version or 'none'}")
        for name, application in seen.applications.items():
            typer.echo(f"application {name}: {application}")
        table = Table("pod", "component", "phase", "ready", "restarts", box=None, pad_edge=False)
        for pod in seen.pods:
            ready = "yes" if pod.ready else "no"
            table.add_row(pod.name, pod.component, pod.phase, ready, str(pod.restarts))
        Console().print(table)
    if not seen.ready:
        raise typer.Exit(1)


def promote(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A published version.")],
    namespace: Namespace = "default",
    release: Name = "marquee",
    service: Service = "",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    timeout_s: Timeout = 120.0,
) -> None:
    """Let a published version answer. No pod is restarted and no request is dropped.

    Example: marquee k8s promote 2 -n recsys
    """
    with _release(namespace, release, service, kubeconfig, context) as found:
        _move(found, timeout_s, "marquee", "promote", version, "--json")


def rollback(
    namespace: Namespace = "default",
    release: Name = "marquee",
    service: Service = "",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    timeout_s: Timeout = 120.0,
) -> None:
    """Return to the version that answered before.

    Example: marquee k8s rollback -n recsys
    """
    with _release(namespace, release, service, kubeconfig, context) as found:
        _move(found, timeout_s, "marquee", "rollback", "--json")


def logs(
    component: Annotated[
        str, typer.Argument(help="serve-head, serve-worker, qdrant, redis-state, nightly, ...")
    ] = "serve-worker",
    namespace: Namespace = "default",
    release: Name = "marquee",
    service: Service = "",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    lines: Annotated[int, typer.Option(min=1, help="Of each pod.")] = 100,
) -> None:
    """The last lines of a component's pods.

    Example: marquee k8s logs serve-worker -n recsys --lines 20
    """
    with _release(namespace, release, service, kubeconfig, context) as found:
        for pod, text in found.logs(component, lines=lines).items():
            for line in text.splitlines():
                typer.echo(f"{pod}: {line}")


def _move(found: Release, timeout_s: float, *command: str) -> None:
    version = json.loads(found.run(*command))["version"]
    console.print(f"version {version} is promoted; waiting until it answers")
    found.wait_for_version(version, timeout_s)
    typer.echo(f"version {version} answers now")


@contextmanager
def _release(
    namespace: str, name: str, service: str, kubeconfig: str | None, context: str | None
) -> Iterator[Release]:
    """The release; what goes wrong with the cluster is one line and exit status 2."""
    from app.cluster import ClusterError, Release

    try:
        yield Release.connect(
            namespace=namespace,
            name=name,
            service=service or _fullname(name),
            kubeconfig=kubeconfig,
            context=context,
        )
    except ClusterError as error:
        console.print(f"error: {error}", style="bold red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from None


def _fullname(release: str) -> str:
    """As the chart names its objects, without `fullnameOverride`."""
    name = release if "marquee" in release else f"{release}-marquee"
    return name[:40].rstrip("-")
