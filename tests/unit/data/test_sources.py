import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.chunks import read_events
from training.data.events import plan_chunks
from training.data.movielens import detect
from training.data.sources import generic
from training.errors import UserError

ROWS = [(1, 10, 4.0, 100), (1, 20, 3.5, 200), (2, 10, 5.0, 300)]


def _events(source):
    columns = ("user", "item", "rating", "timestamp")
    return [tuple(row[name] for name in columns) for row in read_events(source).to_pylist()]


def _movielens_csv(path):
    lines = ["userId,movieId,rating,timestamp", *(",".join(map(str, row)) for row in ROWS)]
    (path / "ratings.csv").write_text("\n".join(lines) + "\n")


def _movielens_dat(path):
    (path / "ratings.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in ROWS))


def _movielens_100k(path):
    (path / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in ROWS))


def _movielens_parquet(path):
    names = ["userId", "movieId", "rating", "timestamp"]
    columns = [pa.array(column) for column in zip(*ROWS, strict=True)]
    pq.write_table(pa.table(columns, names), path / "interactions.parquet")
    (path / "movies.dat").write_text("10::Ten (1990)::Drama\n")


@pytest.mark.parametrize(
    ("write", "shape"),
    [
        (_movielens_csv, "MovieLens csv"),
        (_movielens_dat, "MovieLens .dat"),
        (_movielens_100k, "MovieLens 100K"),
        (_movielens_parquet, "MovieLens 1M parquet"),
    ],
)
def test_every_movielens_shape_gives_the_same_events(tmp_path, write, shape):
    write(tmp_path)
    source = detect(tmp_path)
    assert (source.shape, source.entity, source.rating_range) == (shape, "movie", (0.5, 5.0))
    assert source.verb == "watched"
    assert _events(source) == ROWS


def test_a_directory_without_a_data_set_names_what_is_there(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match=r"no MovieLens data set.*found: notes.txt.*--user COL"):
        detect(tmp_path)


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(UserError, match="gone does not exist"):
        detect(tmp_path / "gone")


def test_a_misnamed_movielens_column_is_named(tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,movie,rating,timestamp\n1,2,3,4\n")
    with pytest.raises(UserError, match=r"no column 'movieId', did you mean 'movie'\?"):
        detect(tmp_path)


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "ratings.csv").write_text("")
    with pytest.raises(UserError, match=r"ratings.csv is empty"):
        detect(tmp_path)


def test_a_broken_parquet_file_is_named(tmp_path):
    (tmp_path / "events.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        generic(tmp_path / "events.parquet", user="u", item="i")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_generic_text_is_read_with_its_own_delimiter_and_columns(tmp_path, delimiter):
    lines = (["when", "song", "who"], ["5", "s1", "u1"], ["6", "s2", "u1"])
    (tmp_path / "plays").write_text("\n".join(map(delimiter.join, lines)))
    source = generic(tmp_path / "plays", user="who", item="song", time="when")
    assert _events(source) == [("u1", "s1", None, 5), ("u1", "s2", None, 6)]
    assert (source.entity, source.verb) == ("item", "liked")


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path):
    (tmp_path / "plays.csv").write_bytes(b"\xef\xbb\xbfwho,song\nu1,s1\n")
    source = generic(tmp_path / "plays.csv", user="who", item="song")
    assert _events(source) == [("u1", "s1", None, None)]


def test_generic_parquet_is_read_by_row_groups(tmp_path):
    table = pa.table({"u": ["a", "b", "c"], "i": [3, 2, 1], "other": [0, 0, 0]})
    pq.write_table(table, tmp_path / "plays.parquet", row_group_size=2)
    source = generic(tmp_path / "plays.parquet", user="u", item="i")
    assert [chunk.start for chunk in plan_chunks(source.events)] == [0, 1]
    assert _events(source) == [("a", 3, None, None), ("b", 2, None, None), ("c", 1, None, None)]


def test_a_text_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "plays.csv").write_bytes("utilisé,pièce\n1,2\n".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        generic(tmp_path / "plays.csv", user="utilisé", item="pièce")
