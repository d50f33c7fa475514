"""Sources and prepared data on S3, as moto's server speaks it."""

import gzip

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.chunks import prepare_inline, read_events
from tests.datasets import assert_same
from training.cli import build_app
from training.data import dataset, remote
from training.data.mapping import read_mapping
from training.data.movielens import detect
from training.data.remote import fetched
from training.data.sources import CatalogueFile, generic
from training.data.synthetic import write_synthetic
from training.errors import UserError

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def bucket(s3_endpoint):
    bucket = boto3.resource("s3").Bucket("logs")
    bucket.create()
    return bucket


@pytest.fixture
def prepare(monkeypatch):
    return prepare_inline(monkeypatch)


def test_a_movielens_directory_on_s3_gives_what_the_local_one_gives(bucket, tmp_path, prepare):
    write_synthetic(tmp_path / "raw", users=30, items=40, events=600, seed=2)
    for name in ("ratings.csv", "movies.csv"):
        bucket.put_object(Key=f"ml/{name}", Body=(tmp_path / "raw" / name).read_bytes())
    prepare(detect("s3://logs/ml/"), tmp_path / "remote", chunk_bytes=2_000)
    prepare(detect(tmp_path / "raw"), tmp_path / "local", chunk_bytes=2_000)
    remote, local = dataset.load(tmp_path / "remote"), dataset.load(tmp_path / "local")
    assert remote.fingerprint == local.fingerprint
    assert np.array_equal(remote.item, local.item)
    assert np.array_equal(remote.timestamp, local.timestamp)


def test_a_directory_of_gzip_and_plain_files_on_s3_with_a_mapping(bucket, tmp_path, prepare):
    bucket.put_object(Key="plays/a.csv.gz", Body=gzip.compress(b"who,what\nu1,s1\nu2,s2\n"))
    bucket.put_object(Key="plays/b.csv", Body=b"what,who\ns2,u1\n")
    bucket.put_object(Key="plays/_SUCCESS", Body=b"")
    text = "entity: song\nverb: played\nevents: {path: plays/, user: who, item: what}\n"
    bucket.put_object(Key="dataset.yaml", Body=text.encode())
    source = read_mapping("s3://logs/dataset.yaml")
    assert [row["user"] for row in read_events(source).to_pylist()] == ["u1", "u2", "u1"]
    prepare(source, tmp_path / "data")
    data = dataset.load(tmp_path / "data")
    assert (data.entity, data.verb, data.n_events) == ("song", "played", 3)
    assert data.item_ids[data.item].tolist() == ["s1", "s2", "s2"]


def test_items_with_columns_of_every_kind_on_s3(bucket, tmp_path, prepare):
    pq.write_table(
        pa.table(
            {
                "sku": ["b", "a"],
                "price": [9.5, None],
                "colour": ["red", "blue"],
                "moods": [["calm"], None],
                "image": [[0.1, 0.2], None],
            }
        ),
        tmp_path / "items.parquet",
    )
    body = (tmp_path / "items.parquet").read_bytes()
    bucket.put_object(Key="shop/items.parquet", Body=body)
    pq.write_table(pa.table({"u": [1, 2], "sku": ["a", "c"]}), tmp_path / "events.parquet")
    body = (tmp_path / "events.parquet").read_bytes()
    bucket.put_object(Key="shop/events.parquet", Body=body)
    catalogue = CatalogueFile("s3://logs/shop/items.parquet", "columns", "sku")
    source = generic("s3://logs/shop/events.parquet", user="u", item="sku", catalogue=catalogue)
    prepare(source, tmp_path / "data")
    items = dataset.load(tmp_path / "data").items
    assert items["item_id"].to_pylist() == ["a", "b", "c"]
    assert items["price"].to_pylist() == [None, 9.5, None]
    assert items["moods"].to_pylist() == [None, ["calm"], None]
    assert items["image"].to_pylist()[1] == pytest.approx([0.1, 0.2])


def test_an_upload_that_never_ended_is_not_there(bucket, tmp_path):
    upload = bucket.Object("half/ratings.csv").initiate_multipart_upload()
    upload.Part(1).upload(Body=b"userId,movieId,rating,timestamp\n1,1,4,10\n")
    with pytest.raises(UserError, match="s3://logs/half does not exist"):
        detect("s3://logs/half")
    upload.abort()


def test_an_upload_that_was_cut_off_is_named(bucket, tmp_path, prepare):
    bucket.put_object(Key="cut/ratings.csv", Body=b"userId,movieId,rating,timestamp\n1,1,4,10\n1,2")
    with pytest.raises(UserError, match="s3://logs/cut/ratings.csv: row 3 has 2 fields"):
        prepare(detect("s3://logs/cut"), tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_that_cannot_be_reached_is_one_clear_line(tmp_path, monkeypatch, bucket):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(UserError, match="s3://logs/ml cannot be reached") as error:
        detect("s3://logs/ml")
    assert "\n" not in str(error.value)


@pytest.fixture
def marquee(prepare):
    def run(*arguments):
        result = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
        if result.exception:
            raise result.exception
        return result.stdout

    return run


def _write_days(folder, count):
    for day in range(count):
        lines = [f"{user},{user * day % 5},{day * 86_400 + user}" for user in range(1, 9)]
        (folder / f"{day}.csv").write_text("who,what,when\n" + "\n".join(lines) + "\n")
    return ["--user", "who", "--item", "what", "--time", "when"]


def _top(bucket, prefix):
    keys = [entry.key.removeprefix(prefix) for entry in bucket.objects.filter(Prefix=prefix)]
    return {key.partition("/")[0] for key in keys} - {""}  # a key for the folder itself


def test_data_prepared_to_s3_and_appended_to_is_what_a_local_directory_holds(
    bucket, tmp_path, marquee
):
    columns = _write_days(tmp_path, 2)
    out, local = "s3://logs/prepared/data", tmp_path / "local"
    for target in (local, out):
        marquee("prepare", tmp_path / "0.csv", target, *columns)
        marquee("prepare", "--append", tmp_path / "1.csv", target, *columns)
    with fetched(out) as directory:
        assert_same(directory, local)
    # statistics.json, what it names and what that replaced
    assert len(_top(bucket, "prepared/data/")) == 3


def test_an_upload_that_ends_half_way_leaves_the_data_that_was_there(
    bucket, tmp_path, marquee, monkeypatch
):
    columns = _write_days(tmp_path, 2)
    out = "s3://logs/half/data"
    marquee("prepare", tmp_path / "0.csv", out, *columns)
    before = dataset.load(out)

    def copy_some(source, destination, **options):
        copy_files(f"{source}/users.parquet", f"{destination}/users.parquet", **options)
        raise OSError("connection lost")

    copy_files = remote.pafs.copy_files
    with monkeypatch.context() as cut_off:
        cut_off.setattr(remote.pafs, "copy_files", copy_some)
        with pytest.raises(UserError, match=f"cannot write to {out}: connection lost"):
            marquee("prepare", tmp_path / "1.csv", out, *columns)
    assert before.address == out
    assert dataset.load(out).fingerprint == before.fingerprint
    marquee("prepare", tmp_path / "1.csv", out, *columns)
    assert "report.html" in marquee("data", "report", out, "--out", tmp_path / "report.html")
    assert len(_top(bucket, "half/data/")) == 3  # the half one is cleared away


def test_what_cannot_be_written_to_on_s3_is_refused_before_anything_is_read(
    bucket, tmp_path, marquee
):
    columns = _write_days(tmp_path, 1)
    bucket.put_object(Key="mine/letter.txt", Body=b"dear")
    for out, message in (
        ("s3://logs/mine", "s3://logs/mine holds something that was not written by this command"),
        ("s3://nobucket/data", "s3://nobucket/data: there is no such bucket"),
    ):
        with pytest.raises(UserError, match=message):
            marquee("prepare", tmp_path / "0.csv", out, *columns)
    with pytest.raises(UserError, match="s3://logs/none is not a prepared data set"):
        marquee("prepare", "--append", tmp_path / "0.csv", "s3://logs/none", *columns)
    with pytest.raises(UserError, match="s3://logs/none is not a prepared data set"):
        dataset.load("s3://logs/none")
    assert _top(bucket, "mine/") == {"letter.txt"}
