"""`marquee events export`: from the stream to Parquet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console

if TYPE_CHECKING:
    from app.adapters.event_log import EventLog
    from app.adapters.redis_erasures import RedisErasures
    from app.adapters.redis_stream import RedisEventStream
    from app.event_export import Exported

T = TypeVar("T")

console = Console(stderr=True)
_TIMEOUT_S = 10.0

EXPORT_HELP = """Copy acknowledged feedback from the event stream to Parquet files by day.

LOG is a directory or s3://bucket/prefix. What is there already is not copied again, so the
command can be run as often as one likes; --follow runs it again and again. To learn from LOG,
append it with `prepare` or name it to `retrain`.

Examples:

- `marquee events export --log log/`
- `marquee events export --log s3://models/feedback --redis redis://state:6379 --follow`
"""

Log = Annotated[str, typer.Option(help="Directory or s3:// of the event log.")]
RedisUrl = Annotated[
    str, typer.Option(envvar="REDIS_URL", help="Redis with the feedback; else --state-dir's.")
]
StateDir = Annotated[
    Path, typer.Option(help="Where a running `marquee serve` keeps feedback, without --redis.")
]


def register(app: typer.Typer) -> typer.Typer:
    """Add the commands about events; returns their group, for more of them."""
    events = typer.Typer(help="Feedback on its way to training.", no_args_is_help=True)
    events.command("export", help=EXPORT_HELP)(export)
    app.add_typer(events, name="events")
    return events


def export(
    log: Log,
    redis: RedisUrl = "",
    state_dir: StateDir = Path(".marquee/state"),
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C.")] = False,
    every_s: Annotated[
        float, typer.Option(min=0.1, help="With --follow: seconds between exports.")
    ] = 60.0,
    keep_hours: Annotated[
        float | None,
        typer.Option(min=0.0, help="Then drop older, exported events from the stream."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Export events."""
    from app.event_export import export_and_trim

    target = open_log(log)
    url = redis or local_redis_url(state_dir)

    async def once() -> Exported:
        stream, erasures = connect(url)
        try:
            return await export_and_trim(stream, erasures, target, keep_hours=keep_hours)
        finally:
            await stream.close()
            await erasures.close()

    async def line() -> str:
        done = await once()
        news = done.events or done.erased or done.trimmed
        return f"{log}: {_summary(done)}" if news else ""

    if follow:
        asyncio.run(again_and_again(line, every_s))
        return
    done = run(once())
    if as_json:
        typer.echo(json.dumps({"log": log, **asdict(done)}))
    else:
        typer.echo(f"{log}: {_summary(done)}")


def local_redis_url(state_dir: Path, role: str = "state") -> str:
    """The Redis that a running `marquee serve` started for its state, or for its cache."""
    from app.adapters.valkey import URL_FILE

    try:
        return (state_dir / role / URL_FILE).read_text("utf-8").strip()
    except OSError:
        fail(f"no service keeps feedback in {state_dir} just now: name its Redis with --redis")


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; what it cannot reach is one line and exit status 2."""
    from app.errors import MarqueeError

    try:
        return asyncio.run(work)
    except (MarqueeError, OSError) as error:
        fail(_one_line(error))


def fail(message: str) -> NoReturn:
    """One line on stderr and exit status 2."""
    console.print(f"error: {message}", style="bold red", markup=False, soft_wrap=True)
    raise typer.Exit(2)


async def again_and_again(once: Callable[[], Coroutine[Any, Any, str]], every_s: float) -> None:
    """Say what `once` returns until interrupted; what is away for a while is waited for."""
    from app.errors import MarqueeError

    while True:
        try:
            if line := await once():
                _say(line)
        except (MarqueeError, OSError) as error:
            _say(f"not copied: {_one_line(error)}")
        await asyncio.sleep(every_s)


def open_log(address: str) -> EventLog:
    """The event log at an address."""
    from app.adapters.event_log import EventLog

    try:
        return EventLog.open(address)
    except ValueError as error:
        fail(f"--log {error}")


def connect(url: str) -> tuple[RedisEventStream, RedisErasures]:
    """The stream and the erased users of a Redis; as `redis_stream`."""
    from app.adapters.redis_erasures import RedisErasures

    return redis_stream(url), RedisErasures(url, timeout_s=_TIMEOUT_S)


def redis_stream(url: str) -> RedisEventStream:
    """The stream at an address; a mistake in it is one line and exit status 2."""
    from app.adapters.redis_stream import RedisEventStream

    try:
        return RedisEventStream(url, timeout_s=_TIMEOUT_S)
    except ValueError as error:
        fail(f"--redis {url}: {error}")


def _summary(done: Exported) -> str:
    return (
        f"{done.events:,} events more, {done.erased:,} of erased users taken out, "
        f"{done.trimmed:,} dropped from the stream"
    )


def _one_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _say(line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
