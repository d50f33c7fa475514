import numpy as np
import pyarrow as pa
import pytest

from tests.chunks import read_events
from training.data.events import (
    NO_ITEM,
    NO_TIME,
    NO_USER,
    RATING_NOT_FINITE,
    RATING_OUT_OF_RANGE,
    REASONS,
    TIME_IN_FUTURE,
    TIME_NEGATIVE,
    VALID,
    Limits,
    find_rejects,
    plan_chunks,
)
from training.data.movielens import detect
from training.data.sources import generic
from training.errors import UserError

HEADER = "userId,movieId,rating,timestamp\n"


def _file(tmp_path, lines):
    (tmp_path / "ratings.csv").write_text(HEADER + lines)
    return detect(tmp_path)


_read = read_events


@pytest.mark.parametrize("chunk_bytes", [1, 16, 100, 10**6])
@pytest.mark.parametrize("ending", ["", "\n"])
def test_chunks_of_any_size_give_every_row_once_with_its_line_number(tmp_path, chunk_bytes, ending):
    lines = [f"{user},{user * 7},{1 + user % 5},{user * 1000}" for user in range(1, 60)]
    table = _read(_file(tmp_path, "\n".join(lines) + ending), chunk_bytes)
    assert table["row"].to_pylist() == list(range(2, 61))
    assert table["user"].to_pylist() == list(range(1, 60))


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_empty_lines_make_no_row_but_count_as_lines(tmp_path, line_end):
    lines = line_end.join(["1,2,3,4", "", "5,6,4,8", "", ""])
    table = _read(_file(tmp_path, lines))
    assert table["row"].to_pylist() == [2, 4]
    assert table["timestamp"].to_pylist() == [4, 8]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2,good,4", r"row 4, column 'rating': 'good' is not a number"),
        ("1,x2,3,4", r"row 4, column 'movieId': 'x2' is not a whole number"),
        ("1.5,2,3,4", r"row 4, column 'userId': '1.5' is not a whole number"),
        ("1,2,3,noon", r"row 4, column 'timestamp': 'noon' is not a time"),
        ("1,2,3", r"row 4 has 3 fields where 4 are expected: '1,2,3'"),
        ("1,2,3,4,5", r"row 4 has 5 fields where 4 are expected"),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [4, 10**6])
def test_a_line_that_makes_no_sense_is_named(tmp_path, line, message, chunk_bytes):
    file = _file(tmp_path, f"1,2,3,4\n\n{line}\n1,2,3,4\n")
    with pytest.raises(UserError, match=f"ratings.csv: {message}"):
        _read(file, chunk_bytes)


def test_a_header_without_events_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no events"):
        plan_chunks(_file(tmp_path, "").events)


def test_ids_of_a_generic_file_stay_as_they_are_written(tmp_path):
    (tmp_path / "plays.csv").write_text("u,i\n007,1\nx,2\n")
    file = generic(tmp_path / "plays.csv", user="u", item="i")
    assert _read(file)["user"].to_pylist() == ["007", "x"]


def test_iso_times_are_read_from_text(tmp_path):
    (tmp_path / "plays.csv").write_text("u,i,t\na,1,1970-01-02\nb,2,1970-01-03T00:00:01\n")
    file = generic(tmp_path / "plays.csv", user="u", item="i", time="t")
    assert _read(file)["timestamp"].to_pylist() == [86_400, 172_801]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, None),
        ({"rating": None}, None),
        ({"user": None}, NO_USER),
        ({"item": None}, NO_ITEM),
        ({"rating": float("nan")}, RATING_NOT_FINITE),
        ({"rating": float("inf")}, RATING_NOT_FINITE),
        ({"rating": 5.5}, RATING_OUT_OF_RANGE),
        ({"rating": 0.0}, RATING_OUT_OF_RANGE),
        ({"timestamp": None}, NO_TIME),
        ({"timestamp": -1}, TIME_NEGATIVE),
        ({"timestamp": 1001}, TIME_IN_FUTURE),
        ({"user": None, "rating": 9.0}, NO_USER),
    ],
)
def test_each_fault_of_an_event_has_its_reason(fields, reason):
    event = {"row": 2, "user": 1, "item": 1, "rating": 4.0, "timestamp": 1000} | fields
    types = [pa.int64(), pa.int64(), pa.int64(), pa.float32(), pa.int64()]
    table = pa.table(
        {name: pa.array([event[name]], t) for name, t in zip(event, types, strict=True)}
    )
    limits = Limits(rating_range=(0.5, 5.0), now=1000)
    found = find_rejects(table, limits, has_time=True)
    assert found.dtype == np.int8
    assert (None if found[0] == VALID else REASONS[found[0]]) == reason
