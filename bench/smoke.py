"""`marquee smoke`: does a service that runs somewhere do what it is for?"""

from __future__ import annotations

import json
import time
from typing import Annotated, Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import typer
from rich.console import Console

from training.errors import UserError

console = Console(stderr=True)

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
            envvar="MARQUEE_API_KEY", help="Key with the scopes recommend and feedback, if needed."
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Ask a running service for what it is for: slates, feedback that shows, neighbours, metrics.

    Leaves one event of the user `smoke` behind.

    Example: marquee smoke http://localhost:8000
    """
    service = Service(url.rstrip("/"), api_key)
    service.wait_until_ready(timeout_s)
    try:
        report = check(service)
    except SmokeError as error:
        raise UserError(f"{url}: {error}") from None
    if as_json:
        typer.echo(json.dumps(report))
    else:
        typer.echo(f"{url}: version {report['model_version']} answers; {report['watched']} gone")


class Service:
    """The HTTP API, as much of it as the test asks."""

    def __init__(self, url: str, api_key: str = "") -> None:
        self._url = url
        self._key = {"x-api-key": api_key} if api_key else {}

    def wait_until_ready(self, timeout_s: float) -> None:
        """UserError when `/ready` does not say so in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.get("/ready")
                return
            except (SmokeError, URLError, OSError) as error:
                if time.monotonic() >= deadline:
                    raise UserError(
                        f"{self._url} is not ready after {timeout_s:g} s: {error}"
                    ) from None
                time.sleep(1.0)

    def get(self, path: str) -> Any:
        """The JSON at a path. SmokeError for another status than 200."""
        return json.loads(self.read(path))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that a body is answered with. SmokeError for another status than 200."""
        return json.loads(self.read(path, json.dumps(body).encode()))

    def read(self, path: str, body: bytes | None = None) -> bytes:
        """The bytes of an answer."""
        headers = {"content-type": "application/json", "cache-control": "no-cache", **self._key}
        request = Request(self._url + path, data=body, headers=headers)
        try:
            with urlopen(request, timeout=_REQUEST_TIMEOUT_S) as response:
                content: bytes = response.read()
        except HTTPError as error:
            raise SmokeError(f"{path}: {error.code} {error.read()[:300]!r}") from None
        return content


def check(service: Service) -> dict[str, Any]:
    """Walk through the API; what was seen. Raises SmokeError at the first thing that is wrong."""
    id_field = service.get("/info")["id_field"]
    before = _slate(service)
    watched = before["recommendations"][0][id_field]
    event = {"user_id": "smoke", "item_id": watched, "event_type": "watch"}
    _must(service.post("/feedback", event)["status"] == "stored", "/feedback was not stored")
    after = _slate(service)
    offered = [item[id_field] for item in after["recommendations"]]
    _must(watched not in offered, f"/recommend still offers {watched} after it was watched")
    similar = service.get(f"/similar/{watched}?limit=5")["similar"]
    _must(len(similar) > 0, f"/similar/{watched} is empty")
    exposition = service.read("/metrics").decode()
    _must("marquee_requests_total" in exposition, "/metrics does not count requests")
    return {
        "model_version": after["model_version"],
        "watched": watched,
        "degraded": after["degraded"],
        "latency_ms": after["latency_ms"],
    }


def _slate(service: Service) -> Any:
    slate = service.post("/recommend", {"user_id": "smoke", "num_recommendations": 5})
    _must(len(slate["recommendations"]) > 0, "/recommend is empty")
    return slate


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SmokeError(otherwise)
