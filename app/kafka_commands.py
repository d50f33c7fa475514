"""`marquee events mirror`: from the stream to Kafka."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.event_commands import (
    RedisUrl,
    StateDir,
    again_and_again,
    fail,
    local_redis_url,
    redis_stream,
    run,
)

if TYPE_CHECKING:
    from app.adapters.kafka_stream import KafkaEventStream

MIRROR_HELP = """Copy acknowledged feedback from the event stream to a Kafka topic, ids kept.

What is there already is not copied again, so the command can be run as often as one likes;
--follow runs it again and again. One mirror at a time: two would write an event twice.

Examples:

- `marquee events mirror --kafka broker:9092`
- `marquee events mirror --kafka broker:9092 --kafka-config client.properties --follow`
"""
_TIMEOUT_S = 10.0


def register(events: typer.Typer) -> None:
    """Add the command to those about events."""
    events.command("mirror", help=MIRROR_HELP)(mirror)


def mirror(
    kafka: Annotated[
        str, typer.Option(envvar="KAFKA_BOOTSTRAP_SERVERS", help="Brokers: host:port,...")
    ],
    topic: Annotated[str, typer.Option(help="Topic; its partition 0 is used.")] = "marquee-events",
    kafka_config: Annotated[
        Path | None,
        typer.Option(envvar="KAFKA_CONFIG", help="File of librdkafka's settings: name=value."),
    ] = None,
    redis: RedisUrl = "",
    state_dir: StateDir = Path(".marquee/state"),
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C.")] = False,
    every_s: Annotated[
        float, typer.Option(min=0.1, help="With --follow: seconds between copies.")
    ] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Mirror events."""
    from app.event_export import mirror as copy

    target = _kafka_stream(kafka, topic, kafka_config)
    url = redis or local_redis_url(state_dir)

    async def once() -> int:
        source = redis_stream(url)
        try:
            return await copy(source, target)
        finally:
            await source.close()

    async def line() -> str:
        copied = await once()
        return f"{topic}: {copied:,} events more" if copied else ""

    if follow:
        asyncio.run(again_and_again(line, every_s))
        return
    copied = run(once())
    if as_json:
        typer.echo(json.dumps({"topic": topic, "events": copied}))
    else:
        typer.echo(f"{topic}: {copied:,} events more")


def _kafka_stream(servers: str, topic: str, file: Path | None) -> KafkaEventStream:
    from app.adapters.kafka_stream import KafkaEventStream

    config = _properties(file) if file else {}
    try:
        return KafkaEventStream(servers, topic=topic, timeout_s=_TIMEOUT_S, config=config)
    except ValueError as error:
        fail(f"--kafka-config {file}: {error}")


def _properties(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text("utf-8").splitlines()
    except OSError as error:
        fail(f"--kafka-config {file}: {error.strerror}")
    given = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    wrong = [line for line in given if "=" not in line]
    if wrong:
        fail(f"--kafka-config {file}: {wrong[0]!r} is not name=value")
    pairs = (line.split("=", 1) for line in given)
    return {name.strip(): value.strip() for name, value in pairs}
