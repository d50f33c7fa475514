"""What every event stream promises, whichever server keeps it."""

import asyncio
import json
from uuid import uuid4

import pytest
import typer
from confluent_kafka import Producer
from redis import Redis
from typer.testing import CliRunner

from app import event_commands, kafka_commands
from app.adapters.kafka_stream import KafkaEventStream
from app.adapters.redis_state import RedisUserState
from app.adapters.redis_stream import RedisEventStream
from app.domain import Event, EventType, StreamEntry, event_order
from app.errors import DependencyUnavailable
from tests.fakes import FakeEventStream
from training.data.event_log import read_entries


@pytest.fixture(scope="session")
def kafka_servers():
    """A broker inside the client library, which speaks Kafka's protocol."""
    mock = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    (broker,) = mock.list_topics(timeout=10).brokers.values()
    yield f"{broker.host}:{broker.port}"
    mock.flush(0)


@pytest.fixture
def kafka_stream(kafka_servers):
    return KafkaEventStream(kafka_servers, topic=f"events-{uuid4().hex}", timeout_s=5)


@pytest.fixture(params=["fake", "valkey", "kafka"])
async def stream(request):
    """An empty stream."""
    if request.param == "fake":
        yield FakeEventStream()
        return
    if request.param == "kafka":
        stream = request.getfixturevalue("kafka_stream")
        yield stream
        await stream.close()
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
    kafka_commands.register(event_commands.register(root))
    return CliRunner().invoke(root, ["events", *map(str, words)])


async def test_kafka_finds_an_id_among_many_and_knows_the_newest(kafka_stream):
    assert await kafka_stream.newest_id() == "0-0"
    many = [entry(f"{n}-0") for n in range(1, 400)]
    await kafka_stream.append(many)
    assert await kafka_stream.newest_id() == "399-0"
    assert await kafka_stream.read("250-3", 2) == many[250:252]


async def test_kafka_that_is_away_is_a_dependency_unavailable(free_port):
    stream = KafkaEventStream(f"127.0.0.1:{free_port}", timeout_s=0.2)
    for call in (stream.read("0-0", 1), stream.append(ENTRIES), stream.newest_id()):
        with pytest.raises(DependencyUnavailable, match="Kafka"):
            await call


def test_the_mirror_adds_to_kafka_what_is_new_and_nothing_twice(
    valkey_url, kafka_servers, tmp_path
):
    config = tmp_path / "client.properties"
    config.write_text("# of librdkafka\nlinger.ms = 1\n")
    topic = f"events-{uuid4().hex}"

    async def store(entries):
        state = RedisUserState(valkey_url, timeout_s=2, max_user_bytes=4096)
        return [await state.append(e.event) for e in entries]

    def mirrored():
        words = ("--kafka", kafka_servers, "--topic", topic, "--kafka-config", config)
        done = _marquee("mirror", *words, "--redis", valkey_url, "--json")
        return json.loads(done.stdout)["events"]

    revisions = asyncio.run(store(ENTRIES))
    assert (mirrored(), mirrored()) == (4, 0)
    revisions += asyncio.run(store(ENTRIES[:1]))
    assert mirrored() == 1

    async def read():
        stream = KafkaEventStream(kafka_servers, topic=topic, timeout_s=5)
        return await stream.read("0-0", 10)

    assert [e.event_id for e in asyncio.run(read())] == revisions


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no such setting=1", 'No such configuration property: "no such setting"'),
        ("acks", "'acks' is not name=value"),
        (None, "No such file or directory"),
    ],
)
def test_a_mistake_in_kafka_s_settings_is_one_line_and_status_2(tmp_path, text, said):
    file = tmp_path / "client.properties"
    if text is not None:
        file.write_text(text)
    done = _marquee("mirror", "--kafka", "x:9092", "--kafka-config", file)
    assert done.exit_code == 2
    assert done.stderr == f"error: --kafka-config {file}: {said}\n"


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
        (("--log", tmp_path, "--state-dir", tmp_path), "no service keeps feedback in"),
    ):
        done = _marquee("export", *words)
        assert done.exit_code == 2
        assert done.stderr.startswith(f"error: {said}")
        assert done.stderr.count("\n") == 1
