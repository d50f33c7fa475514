"""What every event stream promises, whichever server keeps it."""

import asyncio
import json

import pytest
import typer
from redis import Redis
from typer.testing import CliRunner

from app import event_commands
from app.adapters.redis_state import RedisUserState
from app.adapters.redis_stream import RedisEventStream
from app.domain import Event, EventType, StreamEntry, event_order
from app.errors import DependencyUnavailable
from tests.fakes import FakeEventStream
from training.data.event_log import read_entries


@pytest.fixture(params=["fake", "valkey"])
async def stream(request):
    """An empty stream."""
    if request.param == "fake":
        yield FakeEventStream()
        return
    stream = RedisEventStream(request.getfixturevalue("valkey_url"), timeout_s=2)
    yield stream
    await stream.close()


def entry(event_id, user="u|1", item="x y", kind=EventType.WATCH):
    return StreamEntry(event_id, Event(user, item, kind, 1_700_000_000_000))


# Nine before ten: ids are two numbers, not texts.
ENTRIES = [entry(event_id, kind=kind) for event_id, kind in zip(
    ("9-0", "9-9", "9-10", "10-0"), EventType, strict=False
)]  # fmt: skip


async def test_entries_come_back_whole_and_oldest_first(stream):
    await stream.append(ENTRIES)
    assert await stream.read("0-0", 10) == ENTRIES


async def test_reading_goes_on_behind_an_id_a_page_at_a_time(stream):
    await stream.append(ENTRIES)
    assert await stream.read("0-0", 2) == ENTRIES[:2]
    assert await stream.read("9-9", 2) == ENTRIES[2:]
    assert await stream.read("10-0", 2) == []


async def test_appending_again_adds_only_what_is_newer(stream):
    await stream.append(ENTRIES[:2])
    await stream.append(ENTRIES)
    assert await stream.read("0-0", 10) == ENTRIES


async def test_an_empty_stream_has_nothing_to_read(stream):
    assert await stream.read("0-0", 10) == []


async def test_feedback_is_in_the_stream_under_the_revision_it_gave(valkey_url):
    state = RedisUserState(valkey_url, timeout_s=2, max_user_bytes=4096)
    revisions = [await state.append(e.event) for e in ENTRIES]
    read = await RedisEventStream(valkey_url, timeout_s=2).read("0-0", 10)
    assert [e.event_id for e in read] == revisions == sorted(revisions, key=event_order)
    assert [e.event for e in read] == [e.event for e in ENTRIES]


async def test_trimming_drops_what_is_older(valkey_url):
    stream = RedisEventStream(valkey_url, timeout_s=2)
    await stream.append(ENTRIES)
    assert await stream.trim("9-10") == 2
    assert await stream.read("0-0", 10) == ENTRIES[2:]


async def test_a_server_that_is_away_is_a_dependency_unavailable(free_port):
    stream = RedisEventStream(f"redis://127.0.0.1:{free_port}", timeout_s=0.2)
    for call in (stream.read("0-0", 1), stream.append(ENTRIES), stream.trim("1-0")):
        with pytest.raises(DependencyUnavailable):
            await call


def _marquee(*words):
    root = typer.Typer()
    event_commands.register(root)
    return CliRunner().invoke(root, ["events", *map(str, words)])


def test_the_command_exports_feedback_once_and_trims_the_stream(valkey_url, tmp_path):
    async def store():
        state = RedisUserState(valkey_url, timeout_s=2, max_user_bytes=4096)
        return [await state.append(e.event) for e in ENTRIES]

    revisions = asyncio.run(store())
    words = ("export", "--log", tmp_path / "log", "--redis", valkey_url, "--json")
    first = json.loads(_marquee(*words).stdout)
    assert (first["events"], first["last_id"]) == (4, revisions[-1])
    entries = read_entries(str(tmp_path / "log"))
    assert entries["event_id"].to_pylist() == revisions
    assert set(entries["user_id"].to_pylist()) == {"u|1"}
    second = json.loads(_marquee(*words, "--keep-hours", 0).stdout)
    assert second["events"] == 0
    with Redis.from_url(valkey_url) as redis:
        assert redis.xlen("marquee:events") == 4 - second["trimmed"] >= 1


def test_a_mistake_is_one_line_and_status_2(free_port, tmp_path):
    away = f"redis://127.0.0.1:{free_port}"
    for words, said in (
        (("--log", "ftp://x", "--redis", away), "--log 'ftp://x' is neither a directory nor s3"),
        (("--log", tmp_path, "--redis", "nowhere"), "--redis nowhere: Redis URL must specify"),
        (("--log", tmp_path, "--redis", away), "event stream: "),
        (("--log", tmp_path, "--state-dir", tmp_path), "no service has kept feedback in"),
    ):
        done = _marquee("export", *words)
        assert done.exit_code == 2
        assert done.stderr.startswith(f"error: {said}")
        assert done.stderr.count("\n") == 1
