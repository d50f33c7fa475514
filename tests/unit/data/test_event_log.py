"""What of the service's feedback a model learns from."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.data.event_log import is_log, leave_out, log_source, positives, read_entries
from training.data.shards import of_erased
from training.data.sources import Source
from training.errors import UserError


def log(path, *rows):
    """rows: (event_id, user, item, type)."""
    ids, users, items, kinds = (list(column) for column in zip(*rows, strict=True))
    times = pa.array([int(i.partition("-")[0]) for i in ids]).cast(pa.timestamp("ms", tz="UTC"))
    table = pa.table(
        {"event_id": ids, "user_id": users, "item_id": items, "event_type": kinds,
         "timestamp": times}
    )  # fmt: skip
    day = path / "events" / "date=2026-01-01"
    day.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, day / f"{ids[0]}_{ids[-1]}.parquet")
    return str(path)


def kept(address):
    found = positives(read_entries(address))
    return list(zip(found["event_id"].to_pylist(), found["item_id"].to_pylist(), strict=True))


def test_clicks_watches_and_likes_are_learnt_and_views_are_not(tmp_path):
    kinds = ("click", "view", "watch", "like", "dislike")
    address = log(tmp_path, *((f"{n}-0", "1", str(n), kind) for n, kind in enumerate(kinds, 1)))
    assert kept(address) == [("1-0", "1"), ("3-0", "3"), ("4-0", "4")]


def test_an_item_counts_once_for_a_user_at_its_first_positive_event(tmp_path):
    address = log(
        tmp_path,
        ("1-0", "1", "7", "view"),
        ("2-0", "1", "7", "click"),
        ("3-0", "1", "7", "watch"),
        ("4-0", "2", "7", "like"),
    )
    assert kept(address) == [("2-0", "7"), ("4-0", "7")]


def test_a_dislike_takes_back_what_came_before_and_a_later_like_gives_it_again(tmp_path):
    address = log(
        tmp_path,
        ("1-0", "1", "7", "watch"),
        ("2-0", "1", "7", "dislike"),
        ("3-0", "1", "8", "dislike"),
        ("4-0", "1", "8", "like"),
    )
    assert kept(address) == [("4-0", "8")]


def test_whole_number_ids_become_numbers_and_others_stay_texts(tmp_path):
    address = log(tmp_path / "log", ("1-0", "alice", "7", "click"), ("2-0", "12", "8", "click"))
    source = log_source(address, tmp_path)
    table = pq.read_table(source.events[0].path)
    assert table["user_id"].to_pylist() == ["alice", "12"]
    assert table["item_id"].to_pylist() == [7, 8]
    assert (source.entity, source.log_position) == ("item", "2-0")


def prepared(path, position):
    path.mkdir()
    pq.write_table(pa.table({"user_id": pa.array([], pa.int64())}), path / "users.parquet")
    (path / "statistics.json").write_text(
        f'{{"format": 1, "entity": "song", "verb": "played", "event_log": "{position}"}}'
    )
    return path


def test_only_what_came_after_the_data_is_added_and_nothing_is_nothing(tmp_path):
    address = log(tmp_path / "log", ("9-0", "1", "7", "click"), ("10-0", "1", "8", "click"))
    source = log_source(address, tmp_path, into=prepared(tmp_path / "older", "9-0"))
    assert pq.read_table(source.events[0].path)["item_id"].to_pylist() == [8]
    assert (source.entity, source.verb) == ("song", "played")
    assert log_source(address, tmp_path, into=prepared(tmp_path / "newer", "10-0")) is None


def test_a_directory_of_other_files_is_no_log(tmp_path):
    (tmp_path / "events").mkdir()
    assert not is_log(str(tmp_path))
    assert not is_log(str(tmp_path / "absent"))


def test_a_damaged_file_is_named(tmp_path):
    address = log(tmp_path, ("1-0", "1", "7", "click"))
    (tmp_path / "events" / "date=2026-01-01" / "2_3.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"2_3\.parquet is not a part of an event log"):
        read_entries(address)


def erase(path, **events):
    """events: u<id>="event id"."""
    listed = {
        user[1:]: {"event_id": event_id, "erased_at": "2026-01-01T00:00:00+00:00"}
        for user, event_id in events.items()
    }
    (path / "erasures.json").write_text(json.dumps(listed))


def test_what_an_erasure_came_after_is_left_out_of_the_log(tmp_path):
    path = tmp_path / "log"
    address = log(path, ("1-0", "7", "1", "click"), ("2-0", "8", "2", "click"),
                  ("3-0", "7", "3", "click"))  # fmt: skip
    erase(path, u7="1-5")
    source = log_source(address, tmp_path)
    assert pq.read_table(source.events[0].path)["item_id"].to_pylist() == [2, 3]
    assert source.erasures == "1-5"


def test_old_events_of_erased_users_are_left_out_and_newer_ones_are_not(tmp_path):
    erase(tmp_path, u7="9-0", u8="10-0")
    source = leave_out(Source("csv", "item", (), None, None), str(tmp_path))
    assert source.erasures == "10-0"
    at = 1_767_225_600  # the erasures' second
    events = pa.table(
        {"user": [7, 7, 9, 8], "timestamp": pa.array([at, at + 1, at, None], pa.int64())}
    )
    assert of_erased(events, source.erased).tolist() == [True, False, False, True]


def test_data_that_holds_users_erased_since_is_not_appended_to(tmp_path):
    address = log(tmp_path / "log", ("11-0", "5", "1", "click"))
    into = prepared(tmp_path / "data", "0-0")
    pq.write_table(pa.table({"user_id": [5, 7]}), into / "users.parquet")
    log_source(address, tmp_path, into=into)
    erase(tmp_path / "log", u7="10-0", u6="9-0")
    with pytest.raises(UserError, match="data holds 1 users who were erased since"):
        log_source(address, tmp_path, into=into)


def test_a_list_that_is_none_is_named(tmp_path):
    (tmp_path / "erasures.json").write_text('{"7": {}}')
    with pytest.raises(UserError, match="not a list of erased users"):
        leave_out(Source("csv", "item", (), None, None), str(tmp_path))
