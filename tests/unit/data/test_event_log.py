"""What of the service's feedback a model learns from."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.data.event_log import is_log, log_source, positives, read_entries
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
    (path / "statistics.json").write_text(
        f'{{"format": 1, "entity": "movie", "event_log": "{position}"}}'
    )
    return path


def test_only_what_came_after_the_data_is_added_and_nothing_is_nothing(tmp_path):
    address = log(tmp_path / "log", ("9-0", "1", "7", "click"), ("10-0", "1", "8", "click"))
    source = log_source(address, tmp_path, into=prepared(tmp_path / "older", "9-0"))
    assert pq.read_table(source.events[0].path)["item_id"].to_pylist() == [8]
    assert source.entity == "movie"
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
