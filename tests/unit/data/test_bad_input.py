"""What people really have on their disks: one clear line each, and nothing half-written."""

import ctypes
import errno
import gzip
import resource
import time
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.chunks import prepare_inline
from training.data import dataset, shards, state
from training.data.mapping import read_mapping
from training.data.movielens import detect
from training.data.sources import CatalogueFile, generic
from training.errors import UserError

HEADER = "userId,movieId,rating,timestamp\n"


@pytest.fixture
def prepare(monkeypatch):
    return prepare_inline(monkeypatch)


def _movielens(directory, ratings, movies=None):
    directory.mkdir()
    (directory / "ratings.csv").write_bytes(ratings.encode())
    if movies is not None:
        (directory / "movies.csv").write_bytes(movies.encode())
    return detect(directory)


def _refused(prepare, source, out, message):
    with pytest.raises(UserError, match=message) as error:
        prepare(source, out)
    assert "\n" not in str(error.value)
    assert not out.exists()
    assert not [path for path in out.parent.iterdir() if path.name.startswith(".")]


def test_crlf_byte_order_marks_quotes_and_commas_are_read(tmp_path, prepare):
    movies = '\ufeffmovieId,title,genres\r\n1,"Yes, ""No"" (1999)",Drama\r\n2,"Two\nlines",War\r\n'
    ratings = "\ufeff" + HEADER.replace("\n", "\r\n") + "1,1,4,10\r\n1,2,3,11\r\n\r\n2,1,5,12\r\n"
    prepare(_movielens(tmp_path / "raw", ratings, movies), tmp_path / "data")
    data = dataset.load(tmp_path / "data")
    assert data.items["title"].to_pylist() == ['Yes, "No" (1999)', "Two\nlines"]
    assert data.items["name"].to_pylist()[0] == 'Yes, "No"'
    assert data.rating.tolist() == [4.0, 3.0, 5.0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2,good,4", r"row 3, column 'rating': 'good' is not a number"),
        ("1,two,3,4", r"row 3, column 'movieId': 'two' is not a whole number"),
        ("1,2,3,2020-13-01", r"row 3, column 'timestamp': '2020-13-01' is not a time"),
        ('1,2,"3,4', r"row 3"),
    ],
)
def test_a_column_of_mixed_types_is_named_with_its_row(tmp_path, prepare, line, message):
    source = _movielens(tmp_path / "raw", f"{HEADER}1,1,4,10\n{line}\n")
    _refused(prepare, source, tmp_path / "data", message)


def test_a_bad_row_far_into_a_file_has_its_own_number(tmp_path, prepare):
    lines = [f"{n},1,4,10\n" for n in range(1, 300)]
    source = _movielens(tmp_path / "raw", HEADER + "".join(lines) + "300,1,x,10\n")
    with pytest.raises(UserError, match="ratings.csv: row 301, column 'rating': 'x'"):
        prepare(source, tmp_path / "data", chunk_bytes=200)


def test_duplicate_item_ids_are_refused(tmp_path, prepare):
    movies = "movieId,title,genres\n1,One,War\n1,Uno,War\n"
    source = _movielens(tmp_path / "raw", HEADER + "1,1,4,10\n", movies)
    _refused(prepare, source, tmp_path / "data", "item 1 is described more than once")


def test_events_of_unknown_items_are_kept_and_counted(tmp_path, prepare):
    movies = "movieId,title,genres\n1,One,War\n"
    source = _movielens(tmp_path / "raw", HEADER + "1,1,4,10\n1,77,4,11\n", movies)
    statistics = prepare(source, tmp_path / "data")
    assert statistics["items_without_description"] == 1
    assert dataset.load(tmp_path / "data").items["title"].to_pylist() == ["One", "77"]


def test_a_truncated_gzip_is_named(tmp_path, prepare):
    lines = "".join(f"u{n % 97},i{n * 7919 % 1009}\n" for n in range(5_000))
    packed = gzip.compress(("who,what\n" + lines).encode())
    (tmp_path / "plays.csv.gz").write_bytes(packed[: len(packed) // 2])
    source = generic(str(tmp_path / "plays.csv.gz"), user="who", item="what")
    _refused(prepare, source, tmp_path / "data", r"plays.csv.gz cannot be read \(is it cut off\?\)")


def test_a_truncated_parquet_is_named(tmp_path):
    table = pa.table({"u": [1, 2], "i": [3, 4]})
    pq.write_table(table, tmp_path / "e.parquet")
    whole = (tmp_path / "e.parquet").read_bytes()
    (tmp_path / "e.parquet").write_bytes(whole[:-20])
    with pytest.raises(UserError, match="e.parquet is not a readable Parquet file"):
        generic(str(tmp_path / "e.parquet"), user="u", item="i")


def test_no_right_to_write_is_one_clear_line(tmp_path, prepare):
    source = _movielens(tmp_path / "raw", HEADER + "1,1,4,10\n")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with _rights_of_anyone():
        _refused(prepare, source, closed / "data", "cannot write in .*closed: Permission denied")


@contextmanager
def _rights_of_anyone():
    """Root, too, is held to the modes of files: without the capability to pass them over."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, own = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, own) == 0
    less = (ctypes.c_uint32 * 6)(*own)
    less[0] &= ~0b10  # CAP_DAC_OVERRIDE of those in effect
    assert libc.capset(header, less) == 0
    try:
        yield
    finally:
        assert libc.capset(header, own) == 0


@pytest.mark.parametrize("room_bytes", [500, 2_000, 4_000, 8_000])
def test_a_file_that_finds_no_room_is_one_clear_line(tmp_path, prepare, room_bytes):
    lines = [f"{n % 40},{n % 97},4,{n}\n" for n in range(2_000)]
    source = _movielens(tmp_path / "raw", HEADER + "".join(lines))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, limits[1]))
    try:
        _refused(prepare, source, tmp_path / "data", "cannot write in .*: File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(("module", "name"), [(shards, "write_table"), (state, "write_state")])
def test_a_full_disk_is_one_clear_line_wherever_it_fills(
    tmp_path, prepare, monkeypatch, module, name
):
    source = _movielens(tmp_path / "raw", HEADER + "1,1,9,10\n" + "1,1,4,10\n" * 2)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, name, full)
    full_disk = "cannot write in .*: No space left on device"
    with pytest.raises(UserError, match=full_disk):
        prepare(source, tmp_path / "data", max_rejects=0.9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_a_full_disk_at_the_end_leaves_the_output_of_before(tmp_path, prepare, monkeypatch):
    source = _movielens(tmp_path / "raw", HEADER + "1,1,4,10\n")
    prepare(source, tmp_path / "data")
    before = (tmp_path / "data" / "statistics.json").read_bytes()

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("training.data.prepare.write_tables", full)
    with pytest.raises(UserError, match="No space left on device"):
        prepare(source, tmp_path / "data")
    assert (tmp_path / "data" / "statistics.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "raw"]


def test_the_share_of_rejects_can_be_set(tmp_path, prepare):
    future = int(time.time()) + 10**6
    source = _movielens(tmp_path / "raw", HEADER + f"1,1,4,10\n1,2,4,{future}\n")
    _refused(prepare, source, tmp_path / "data", "1 of 2 events are rejected, more than 1%")
    prepare(source, tmp_path / "data", max_rejects=0.5)
    rejects = pq.read_table(tmp_path / "data" / "rejects.parquet").to_pylist()
    assert [(each["row"], each["reason"]) for each in rejects] == [(3, "time in the future")]
    assert rejects[0]["file"].endswith("ratings.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("events: {path: e.csv, user: u}", "events.item: field required"),
        ("events: {path: e.csv, user: u, item: i, colour: x}", "events.colour: extra inputs"),
        ("", "says nothing of events"),
        ("events: {path: e.csv, user: u, item: i, rating_range: [5, 1]}", "the lower bound"),
        ("events: [", "line .* is not YAML"),
        ("events: {path: gone.csv, user: u, item: i}", "gone.csv does not exist"),
    ],
)
def test_a_faulty_dataset_yaml_is_one_clear_line(tmp_path, text, message):
    (tmp_path / "e.csv").write_text("u,i\n1,1\n")
    (tmp_path / "dataset.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_mapping(str(tmp_path / "dataset.yaml"))
    assert "\n" not in str(error.value)


def test_vectors_of_differing_length_are_refused(tmp_path, prepare):
    (tmp_path / "e.csv").write_text("u,i\n1,1\n2,2\n")
    pq.write_table(pa.table({"i": [1, 2], "v": [[1.0], [1.0, 2.0]]}), tmp_path / "i.parquet")
    catalogue = CatalogueFile(str(tmp_path / "i.parquet"), "columns", "i")
    source = generic(str(tmp_path / "e.csv"), user="u", item="i", catalogue=catalogue)
    _refused(prepare, source, tmp_path / "data", "'v' holds vectors of 1 to 2 numbers")


def test_lines_that_end_with_cr_alone_are_refused(tmp_path):
    (tmp_path / "e.csv").write_bytes(b"u,i\r1,2\r3,4\r")
    with pytest.raises(UserError, match="e.csv ends its lines with CR alone"):
        generic(str(tmp_path / "e.csv"), user="u", item="i")


def test_one_column_cannot_be_two_things(tmp_path):
    (tmp_path / "e.csv").write_text("u,i\n1,2\n")
    with pytest.raises(UserError, match="column 'u' is named for two things"):
        generic(str(tmp_path / "e.csv"), user="u", item="u")


def test_text_that_parquet_holds_as_bytes_is_an_id(tmp_path, prepare):
    pq.write_table(pa.table({"u": [b"a", b"b"], "i": ["x", "y"]}), tmp_path / "e.parquet")
    prepare(generic(str(tmp_path / "e.parquet"), user="u", item="i"), tmp_path / "data")
    assert dataset.load(tmp_path / "data").user_ids.tolist() == ["a", "b"]


def test_no_event_left_is_said_so(tmp_path, prepare):
    source = _movielens(tmp_path / "raw", HEADER + ",1,4,10\n")
    with pytest.raises(UserError, match="1 of 1 events are rejected, and none is left"):
        prepare(source, tmp_path / "data", max_rejects=1.0)
