"""From the stream to Parquet: every event once, whole files, by day."""

from pathlib import Path

import pyarrow.fs as pafs
import pytest

from app import event_export
from app.adapters.event_log import EventLog
from app.domain import Erasure, Event, EventType, StreamEntry
from app.event_export import export, export_and_trim
from tests.fakes import FakeEventStream, FakeUserState
from training.data.event_log import read_entries

DAY_MS = 86_400_000


def entry(event_id, user="1", item="10", kind=EventType.WATCH):
    return StreamEntry(event_id, Event(user, item, kind, int(event_id.partition("-")[0])))


def entries(*event_ids):
    return [entry(event_id) for event_id in event_ids]


@pytest.fixture
def log(tmp_path):
    return EventLog.open(str(tmp_path / "log"))


async def exported(stream, log, state=None):
    events, _ = await export(stream, state or FakeUserState(), log)
    return events


def files(log):
    return sorted(
        str(path.relative_to(log.root)) for path in Path(log.root).rglob("*") if path.is_file()
    )


def ids(log):
    return read_entries(log.root)["event_id"].to_pylist()


async def test_events_are_filed_by_day_and_named_by_their_first_and_last_id(log):
    stream = FakeEventStream()
    await stream.append(entries("5-0", "7-3", f"{DAY_MS}-0"))
    assert await exported(stream, log) == 3
    assert files(log) == [
        "events/date=1970-01-01/0000000000005-000000_0000000000007-000003.parquet",
        "events/date=1970-01-02/0000086400000-000000_0000086400000-000000.parquet",
    ]
    assert log.last_id() == f"{DAY_MS}-0"
    assert ids(log) == ["5-0", "7-3", f"{DAY_MS}-0"]


async def test_an_export_goes_on_where_the_log_ends(log):
    stream = FakeEventStream()
    await stream.append(entries("1-0", "2-0"))
    assert await exported(stream, log) == 2
    assert await exported(stream, log) == 0
    await stream.append(entries("2-1", "10-0"))
    assert await exported(stream, log) == 2
    assert ids(log) == ["1-0", "2-0", "2-1", "10-0"]


async def test_a_writer_that_dies_leaves_whole_files_and_loses_nothing(log, monkeypatch):
    monkeypatch.setattr(event_export, "FILE_ENTRIES", 2)
    monkeypatch.setattr(event_export, "PAGE_ENTRIES", 2)
    stream = FakeEventStream()
    await stream.append(entries("1-0", "2-0", "3-0", "4-0"))
    moved = []

    class Dying(pafs.LocalFileSystem):
        def move(self, aside, path):
            if moved:
                raise OSError("no space left")
            moved.append(path)
            super().move(aside, path)

    dying = EventLog(log.url, Dying(), log.root)
    with pytest.raises(OSError, match="no space left"):
        await exported(stream, dying)
    assert ids(log) == ["1-0", "2-0"]
    await exported(stream, log)
    assert ids(log) == ["1-0", "2-0", "3-0", "4-0"]


async def test_what_two_writers_wrote_twice_is_read_once(log):
    stream = FakeEventStream()
    await stream.append(entries("1-0", "2-0", "3-0"))
    log.append(stream.entries[:2])
    log.append(stream.entries)
    assert ids(log) == ["1-0", "2-0", "3-0"]


class Trimmed(FakeEventStream):
    async def trim(self, before):
        self.trimmed_to = before
        return 0


async def test_only_what_is_in_the_log_is_dropped_from_the_stream(log):
    stream = Trimmed()
    await stream.append(entries("1-0", "2-0"))
    done = await export_and_trim(stream, FakeUserState(), log, keep_hours=0)
    assert (done.events, done.last_id) == (2, "2-0")
    assert stream.trimmed_to == "2-0"


@pytest.mark.parametrize("address", ["s3://", "ftp://host/log"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(ValueError, match=address):
        EventLog.open(address)


async def test_erased_users_are_taken_out_of_all_files_and_listed(log):
    stream, state = FakeEventStream(), FakeUserState()
    await stream.append([entry("1-0", "7"), entry("2-0", "8"), entry("3-0", "7")])
    assert await export(stream, state, log) == (3, 0)
    state.erased["7"] = Erasure("7", "3-0", "2026-01-01T00:00:00+00:00", {})
    await stream.append([entry("4-0", "7")])  # a new user of the same name
    assert await export(stream, state, log) == (1, 2)
    assert ids(log) == ["2-0", "4-0"]
    assert log.erasures() == {"7": {"event_id": "3-0", "erased_at": "2026-01-01T00:00:00+00:00"}}
    assert log.find("7", "3-0") == []
    assert await export(stream, state, log) == (0, 0)


async def test_a_user_who_is_erased_while_the_entries_are_on_their_way_is_not_in_the_log(log):
    stream, state = FakeEventStream(), FakeUserState()
    await stream.append([entry("1-0", "7"), entry("2-0", "8")])
    erasure = Erasure("7", "1-0", "2026-01-01T00:00:00+00:00", {})
    reading = stream.read

    async def read_then_erase(after, limit):
        entries = await reading(after, limit)
        state.erased["7"] = erasure
        log.erase({"7": erasure})  # the service does so at once
        return entries

    stream.read = read_then_erase
    assert await export(stream, state, log) == (2, 1)
    assert ids(log) == ["2-0"]
