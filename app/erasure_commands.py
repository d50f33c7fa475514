"""`marquee erasure list|verify`: what was erased, and whether it is gone."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from app.domain import Erasure, event_order
from app.event_commands import RedisUrl, StateDir, connect, fail, local_redis_url, open_log, run

console = Console(stderr=True)

VERIFY_HELP = """Look for what is left of an erased user; exit status 1 when something is.

Looks into the state, the stream and the cache, and into the event log and prepared data where
they are named.

Examples:

- `marquee erasure verify 42`
- `marquee erasure verify 42 --redis redis://state:6379 --cache redis://cache:6379 --log log/`
"""
LIST_HELP = """List the erased users with their receipts.

Example: `marquee erasure list --json`
"""

CacheUrl = Annotated[
    str, typer.Option(envvar="REDIS_CACHE_URL", help="Redis with the slates; else as --redis.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer) -> None:
    """Add the commands about erased users."""
    erasure = typer.Typer(help="Erased users.", no_args_is_help=True)
    erasure.command("verify", help=VERIFY_HELP)(verify)
    erasure.command("list", help=LIST_HELP)(list_erasures)
    app.add_typer(erasure, name="erasure")


def verify(
    user: Annotated[str, typer.Argument(metavar="USER", help="Id of the user.")],
    redis: RedisUrl = "",
    cache: CacheUrl = "",
    state_dir: StateDir = Path(".marquee/state"),
    log: Annotated[str | None, typer.Option(help="Event log to look into.")] = None,
    data: Annotated[Path | None, typer.Option(help="Prepared data to look into.")] = None,
    as_json: AsJson = False,
) -> None:
    """Verify an erasure."""
    from app.adapters.redis_cache import RedisSlateCache
    from app.erasing import Eraser

    url = redis or local_redis_url(state_dir)
    cache_url = cache or (url if redis else local_redis_url(state_dir, "cache"))
    target = open_log(log) if log is not None else None

    async def look() -> tuple[Erasure | None, dict[str, str]]:
        stream, erasures = connect(url)
        slates = RedisSlateCache(cache_url, timeout_s=10.0, ttl_s=1)
        try:
            erasure = (await erasures.all()).get(user)
            if erasure is None:
                return None, {"record": f"no erasure of {user} is on record"}
            left = await erasures.left(erasure) | await Eraser(
                erasures, stream, slates, target
            ).left(erasure)
            return erasure, left
        finally:
            for connected in (stream, erasures, slates):
                await connected.close()

    erasure, left = run(look())
    if erasure is not None and data is not None and (found := _in_data(data, erasure)):
        left["data"] = found
    if as_json:
        receipt = asdict(erasure) if erasure else None
        typer.echo(json.dumps({"user_id": user, "receipt": receipt, "left": left}))
    else:
        _print(user, erasure, left)
    raise typer.Exit(1 if left else 0)


def list_erasures(
    redis: RedisUrl = "",
    state_dir: StateDir = Path(".marquee/state"),
    as_json: AsJson = False,
) -> None:
    """List erasures."""

    async def read() -> dict[str, Erasure]:
        stream, erasures = connect(redis or local_redis_url(state_dir))
        try:
            return await erasures.all()
        finally:
            await stream.close()
            await erasures.close()

    found = sorted(run(read()).values(), key=lambda erasure: erasure.erased_at)
    if as_json:
        typer.echo(json.dumps([asdict(erasure) for erasure in found]))
        return
    for erasure in found:
        typer.echo(_receipt(erasure))


def _print(user: str, erasure: Erasure | None, left: dict[str, str]) -> None:
    if erasure is not None:
        typer.echo(_receipt(erasure))
    for place, what in left.items():
        console.print(f"left in {place}: {what}", style="bold red", markup=False, soft_wrap=True)
    if not left:
        typer.echo(f"nothing is left of {user}")


def _receipt(erasure: Erasure) -> str:
    removed = ", ".join(f"{place} {count:,}" for place, count in erasure.removed.items())
    unfinished = "" if erasure.is_finished else "  (interrupted)"
    return f"{erasure.user_id}  {erasure.erased_at}  {erasure.event_id}  {removed}{unfinished}"


def _in_data(data: Path, erasure: Erasure) -> str | None:
    """What prepared data has of the user from before the erasure, None for nothing."""
    import pyarrow.parquet as pq

    try:
        statistics = json.loads((data / "statistics.json").read_bytes())
        users = pq.read_table(data / "users.parquet", columns=["user_id"])["user_id"]
    except (OSError, ValueError) as error:
        fail(f"--data {data} is not prepared data: {error}")
    respected = event_order(statistics.get("erasures") or "0-0")
    if respected >= event_order(erasure.event_id):
        return None
    if erasure.user_id not in map(str, users.to_pylist()):
        return None
    return f"events of the user in {data}: prepare it once more with --erasures"
