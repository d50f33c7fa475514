import datetime

import pyarrow as pa
import pytest

from training.data.columns import (
    BadValueError,
    require_columns,
    to_ids,
    to_ratings,
    to_times,
    whole_number_texts,
)
from training.errors import UserError

UTC = datetime.UTC


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([3, None], pa.int32()), [3, None]),
        (pa.array([3.0]), [3]),
        (pa.array(["a", "7"]), ["a", "7"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
    ],
)
def test_ids_are_whole_numbers_or_text(column, expected):
    assert to_ids(column, whole_numbers=False).to_pylist() == expected


@pytest.mark.parametrize(
    ("column", "bad"), [(pa.array([1.0, 1.5]), 1.5), (pa.array(["1", "x"]), "x")]
)
def test_an_id_that_is_not_a_whole_number_is_named(column, bad):
    with pytest.raises(BadValueError) as error:
        to_ids(column, whole_numbers=True)
    assert (error.value.position, error.value.value) == (1, bad)


def test_ratings_keep_unrated_and_nan_apart():
    ratings = to_ratings(pa.array(["4.5", None, "nan"]))
    assert ratings.type == pa.float32()
    assert ratings[0].as_py() == 4.5
    assert ratings[1].as_py() is None
    assert ratings[2].as_py() != ratings[2].as_py()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1_700_000_000], pa.int64()),
        pa.array([1_700_000_000.9]),
        pa.array(["1700000000"]),
        pa.array(["1700000000.25"]),
        pa.array(["2023-11-14 22:13:20"]),
        pa.array(["2023-11-14T22:13:20.5Z"]),
        pa.array(["2023-11-15T00:13:20+02:00"]),
        pa.array([datetime.datetime(2023, 11, 14, 22, 13, 20)]),
        pa.array([datetime.datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)]),
    ],
)
def test_times_of_every_form_are_unix_seconds(column):
    assert to_times(column).to_pylist() == [1_700_000_000]


def test_dates_are_their_first_second():
    assert to_times(pa.array([datetime.date(1970, 1, 2)])).to_pylist() == [86_400]


def test_times_before_1970_are_rounded_down():
    assert to_times(pa.array([-1.5])).to_pylist() == [-2]


def test_large_whole_seconds_keep_every_digit():
    assert to_times(pa.array([2**60 + 1])).to_pylist() == [2**60 + 1]


def test_a_text_that_is_no_time_is_named():
    with pytest.raises(BadValueError) as error:
        to_times(pa.array(["2023-11-14", None, "yesterday"]))
    assert (error.value.position, error.value.value) == (2, "yesterday")


def test_times_of_mixed_forms_are_refused():
    with pytest.raises(BadValueError, match="same form"):
        to_times(pa.array(["2023-11-14 22:13:20", "1700000000"]))


@pytest.mark.parametrize("texts", [["7", "007"], ["7", "+7"], ["7", "x"], ["7", "7.0"]])
def test_only_plain_whole_numbers_are_read_as_numbers(texts):
    assert whole_number_texts(pa.array(texts)) is None


def test_plain_whole_numbers_are_numbers():
    assert whole_number_texts(pa.array(["7", "-12", "0"])).to_pylist() == [7, -12, 0]


def test_a_misnamed_column_brings_a_suggestion_and_the_names_present():
    with pytest.raises(UserError, match=r"'movieId', did you mean 'MovieID'\? \(it has: userId, M"):
        require_columns(["userId", "movieId"], ["userId", "MovieID"], "f.csv")
