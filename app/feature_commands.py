"""`marquee features materialize`: the online feature store from the offline one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from app.event_commands import RedisUrl, StateDir, connect, fail, local_redis_url, run

MATERIALIZE_HELP = """Load the online feature store from prepared data.

DATA's users, with their histories and the sums that features are made of, replace what Redis has
of them; requests read them together with the feedback. Users who were erased since DATA was
prepared are left out.

Example: `marquee features materialize data/ --redis redis://state:6379`
"""


def register(app: typer.Typer) -> None:
    """Add the commands about features."""
    features = typer.Typer(help="The feature store.", no_args_is_help=True)
    # With a callback the only command keeps its name.
    features.callback()(lambda: None)
    features.command("materialize", help=MATERIALIZE_HELP)(materialize)
    app.add_typer(features, name="features")


def materialize(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A prepared directory.")],
    redis: RedisUrl = "",
    state_dir: StateDir = Path(".marquee/state"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Materialize features."""
    from app.adapters.redis_features import RedisFeatures
    from app.offline_features import OfflineError, read_users

    url = redis or local_redis_url(state_dir)

    async def load() -> int:
        stream, erasures = connect(url)
        features = RedisFeatures(url, timeout_s=10.0)
        try:
            return await features.write(read_users(data, await erasures.all()))
        finally:
            for connected in (stream, erasures, features):
                await connected.close()

    try:
        users = run(load())
    except OfflineError as error:
        fail(str(error))
    if as_json:
        typer.echo(json.dumps({"data": str(data), "users": users}))
    else:
        typer.echo(f"{data}: {users:,} users in the online store")
