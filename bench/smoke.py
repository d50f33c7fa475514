"""`marquee smoke`: does a service that runs somewhere do what it is for?"""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer
from rich.console import Console

from marquee.answers import Slate
from marquee.client import Client, MarqueeError, item_id
from training.errors import UserError

console = Console(stderr=True)

_USER = "smoke"
_REQUEST_TIMEOUT_S = 30.0


class SmokeError(Exception):
    """The service answered, but not as it should; the message says to what and how."""


def register(app: typer.Typer) -> None:
    """Add `marquee smoke` to the root command."""
    app.command()(smoke)


def smoke(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where the service answers.")],
    timeout_s: Annotated[float, typer.Option(help="Longest wait until it is ready, seconds.")] = 60,
    api_key: Annotated[
        str,
        typer.Option(
            envvar="MARQUEE_API_KEY",
            help="Where keys are on: one with the scopes recommend and feedback.",
        ),
    ] = "",
    feedback: Annotated[
        bool, typer.Option(help="Give feedback; a service without a Redis for state refuses it.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Ask a running service for what it is for: slates, feedback that shows, neighbours, metrics.

    Leaves one event of the user `smoke` behind.

    Example: marquee smoke http://localhost:8000
    """
    try:
        with Client(url, api_key=api_key, timeout_s=_REQUEST_TIMEOUT_S) as client:
            wait_until_ready(client, timeout_s)
            report = check(client, feedback=feedback)
    except (SmokeError, MarqueeError, ValueError) as error:  # the last: of a URL or a key
        raise UserError(f"{url}: {error}") from None
    if as_json:
        typer.echo(json.dumps(report))
    else:
        gone = f"; {report['item']} gone after it was watched" if feedback else ""
        typer.echo(f"{url}: version {report['model_version']} answers{gone}")


def wait_until_ready(client: Client, timeout_s: float) -> None:
    """SmokeError when `/ready` does not say so in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            client.ready()
            return
        except MarqueeError as error:
            if time.monotonic() >= deadline:
                raise SmokeError(f"not ready after {timeout_s:g} s: {error}") from None
            time.sleep(1.0)


def check(client: Client, *, feedback: bool = True) -> dict[str, Any]:
    """Walk through the API; what was seen.

    Raises SmokeError at the first thing that is wrong, MarqueeError for what is refused.
    """
    slate = _slate(client)
    item = item_id(slate["recommendations"][0])
    if feedback:
        stored = client.feedback(_USER, item, "watch")
        _must(stored["status"] == "stored", "/feedback was not stored")
        slate = _slate(client)
        offered = [item_id(row) for row in slate["recommendations"]]
        _must(item not in offered, f"/recommend still offers {item} after it was watched")
    _must(len(client.similar(item, 5)["similar"]) > 0, f"/similar/{item} is empty")
    _must("marquee_requests_total" in client.metrics(), "/metrics does not count requests")
    return {
        "model_version": slate["model_version"],
        "item": item,
        "degraded": slate["degraded"],
        "latency_ms": slate["latency_ms"],
    }


def _slate(client: Client) -> Slate:
    slate = client.recommend(_USER, fresh=True, num_recommendations=5)
    _must(len(slate["recommendations"]) > 0, "/recommend is empty")
    return slate


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SmokeError(otherwise)
