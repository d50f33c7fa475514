"""`marquee publish`, `versions`, `promote` and `rollback`."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from training.errors import UserError

if TYPE_CHECKING:
    from training.model.manifest import Manifest
    from training.store import Store

console = Console(stderr=True)

PUBLISH_HELP = """Make a finished run the next version of a store.

The first version of a store answers at once; a later one after `--promote` or
`marquee promote`. An S3 store is found at AWS_ENDPOINT_URL, with the usual AWS credentials.

Examples:

- `marquee publish run/ --store store/`
- `marquee publish run/ --store s3://models/marquee --promote`
"""
VERSIONS_HELP = """List the versions of a store.

Example: `marquee versions --store store/ --json`
"""
PROMOTE_HELP = """Verify a version and make it the one that answers; servers follow within seconds.

Example: `marquee promote 2 --store store/`
"""
ROLLBACK_HELP = """Return to the version that answered before.

Example: `marquee rollback --store store/`
"""

StoreUrl = Annotated[
    str,
    typer.Option("--store", envvar="MARQUEE_STORE", help="A directory or s3://bucket/prefix."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("publish", help=PUBLISH_HELP)(publish)
    app.command("versions", help=VERSIONS_HELP)(versions)
    app.command("promote", help=PROMOTE_HELP)(promote)
    app.command("rollback", help=ROLLBACK_HELP)(rollback)


def publish(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="What `marquee train` wrote.")],
    store: StoreUrl,
    promote: Annotated[bool, typer.Option("--promote", help="Let it answer at once.")] = False,
    as_json: AsJson = False,
) -> None:
    """Publish a run."""
    from training.publish import publish as publish_run
    from training.store import Store

    with _steps() as report, reaching(store):
        target = Store.open(store)
        published = publish_run(run, target, promote=promote, report=report)
        report("Registering in MLflow")
        registered = register_in_mlflow(target, published.manifest, production=published.promoted)
    version = published.manifest.version
    if as_json:
        fields = {"version": version, "store": store, "promoted": published.promoted}
        typer.echo(json.dumps(fields | {"registered": registered}))
    else:
        state = (
            "answers now" if published.promoted else f"`marquee promote {version}` lets it answer"
        )
        typer.echo(f"{store}: version {version}, {state}")


def versions(store: StoreUrl, as_json: AsJson = False) -> None:
    """List versions."""
    with reaching(store):
        target = _existing(store)
        production = target.production()
        listed = [_describe(target.manifest(version), production) for version in target.versions()]
    if as_json:
        typer.echo(json.dumps({"store": store, "versions": listed}))
        return
    table = Table("version", "created", "protocol", "ndcg@10", "production")
    for row in listed:
        ndcg = "" if row["ndcg@10"] is None else f"{row['ndcg@10']:.4f}"
        mark = "yes" if row["production"] else ""
        table.add_row(row["version"], row["created_at"], row["protocol"], ndcg, mark)
    Console().print(table)


def promote(
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="A number that `marquee versions` lists.")
    ],
    store: StoreUrl,
    as_json: AsJson = False,
) -> None:
    """Promote a version."""
    from training.publish import promote as promote_version

    with _steps() as report, reaching(store):
        target = _existing(store)
        pointer = promote_version(target, version, report=report)
        _mark_production(target, pointer.version)
    _print_pointer(store, pointer.version, pointer.previous, as_json)


def rollback(store: StoreUrl, as_json: AsJson = False) -> None:
    """Roll back."""
    from training.publish import rollback as roll_back

    with _steps() as report, reaching(store):
        target = _existing(store)
        pointer = roll_back(target, report=report)
        _mark_production(target, pointer.version)
    _print_pointer(store, pointer.version, pointer.previous, as_json)


def _existing(url: str) -> "Store":
    """The store at `url`; UserError when nothing was ever published there."""
    from training.store import Store

    store = Store.open(url)
    if not store.versions():
        raise UserError(f"store {url} has no versions: make one with `marquee publish RUN`")
    return store


def _describe(manifest: "Manifest", production: str | None) -> dict[str, Any]:
    return {
        "version": manifest.version,
        "created_at": manifest.created_at,
        "protocol": manifest.metrics.get("protocol", manifest.split.protocol),
        "ndcg@10": _ndcg(manifest.metrics),
        "production": manifest.version == production,
    }


def _ndcg(metrics: dict[str, Any]) -> float | None:
    """NDCG@10 of what the bundle serves, None when the run was not evaluated."""
    models = metrics.get("models", {})
    for name in ("ranked", "two-tower"):
        if name in models and "ndcg@10" in models[name]:
            return float(models[name]["ndcg@10"]["value"])
    return None


def register_in_mlflow(store: "Store", manifest: "Manifest", *, production: bool) -> str | None:
    """Enter the bundle in the MLflow registry; returns the registry's number of it.

    A registry that fails is a warning and None: by then the version is in the store, and
    serving does not need the registry.
    """
    from training import registry

    uri = registry.address(manifest)
    try:
        registered = registry.register(uri, store.address, manifest)
        if production:
            registry.mark_production(uri, store.address, manifest.version)
    except registry.RegistryError as error:
        _warn(f"not registered in MLflow at {uri}: {error}")
        return None
    return registered


def _mark_production(store: "Store", version: str) -> None:
    """Let the registry's alias follow; a registry that fails is a warning, as above."""
    from training import registry

    uri = registry.address(store.manifest(version))
    try:
        registry.mark_production(uri, store.address, version)
    except registry.RegistryError as error:
        _warn(f"the alias in MLflow at {uri} was not moved: {error}")


def _print_pointer(store: str, version: str, previous: list[str], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"store": store, "version": version, "previous": previous}))
    else:
        typer.echo(f"{store}: version {version} answers now")


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """Show what is being done on stderr."""
    with console.status("") as status:
        yield status.update


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Make a store that is away, or not what it should be, one line."""
    from training.model.manifest import BundleError

    try:
        yield
    except BundleError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"store {url}: {str(error).splitlines()[0]}") from error


def _warn(message: str) -> None:
    console.print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)
