"""`marquee serve`, and the commands that work on what it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from app import (
    api_commands,
    erasure_commands,
    event_commands,
    feature_commands,
    kafka_commands,
)

console = Console(stderr=True)


def register(app: typer.Typer) -> None:
    """Add the serving commands to the root command."""
    app.command()(serve)
    api_commands.register(app)
    kafka_commands.register(event_commands.register(app))
    erasure_commands.register(app)
    feature_commands.register(app)


def serve(
    store: Annotated[str, typer.Option(help="Directory or s3:// with published bundles.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port to answer on.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to answer on.")] = "127.0.0.1",
    state_dir: Annotated[
        Path, typer.Option(help="Where Valkey keeps feedback, unless REDIS_URL is set.")
    ] = Path(".marquee/state"),
    topology: Annotated[
        str, typer.Option(help="graph: a deployment per stage; fused: one replica for all.")
    ] = "graph",
) -> None:
    """Serve the promoted version over HTTP until Ctrl-C.

    Starts Valkey unless REDIS_URL names a server, and searches the bundle's own index unless
    QDRANT_URL names one. Every other setting is an environment variable, see docs/settings.md.

    Example: marquee serve --store .marquee/store --port 8000
    """
    from pydantic import ValidationError

    from app.keys import KeysError, read_keys
    from app.local import LocalService, StartError, wait_for_interrupt
    from app.rules_json import RulesError, read_rules
    from app.settings import Settings

    try:
        settings = Settings.model_validate({"store": store, "topology": topology})
        read_rules(settings.rules)
        if settings.api_keys:
            read_keys(settings.api_keys)
        with console.status(f"starting the service for {store}"):
            service = LocalService(settings, port=port, host=host, state_dir=state_dir)
            service.__enter__()
    except StartError as error:
        _fail(str(error))
    except (RulesError, KeysError) as error:
        _fail(str(error))
    except ValidationError as error:
        first = error.errors()[0]
        _fail(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    console.print(f"serving {store} at {service.url}  (page: /, API: /docs, Ctrl-C ends)")
    try:
        wait_for_interrupt()
    finally:
        console.print("stopping")
        service.__exit__(None, None, None)


def _fail(message: str) -> NoReturn:
    console.print(f"error: {message}", style="bold red", markup=False, soft_wrap=True)
    raise typer.Exit(2)
