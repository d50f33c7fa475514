"""A store on S3, as moto's server speaks it."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import boto3
import pytest

from app.adapters.event_log import EventLog
from app.domain import Event, EventType, StreamEntry
from tests.bundles import tiny_contents
from training.bundle_writer import write_files
from training.data.event_log import is_log, read_entries
from training.model.bundle import Bundle, BundleError
from training.model.store import BundleStore
from training.store import Store

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("s3_endpoint")]


def _new_bucket():
    bucket = boto3.resource("s3").Bucket(f"bundles-{uuid4().hex}")
    bucket.create()
    return bucket


def _publish(store, model_dir):
    with store.staging() as directory:
        contents = tiny_contents(model_dir, n_items=12, n_users=3)
        return store.add(directory, write_files(directory, contents))


@pytest.fixture
def bucket():
    return _new_bucket()


@pytest.fixture
def store(bucket):
    return Store.open(f"s3://{bucket.name}/marquee/")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A store with version 1, and the names of its files in the order of their upload."""
    uploaded = []
    put = Store._put_file

    def noted(self, source, target):
        put(self, source, target)
        uploaded.append(source.name)

    store = Store.open(f"s3://{_new_bucket().name}/marquee")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "_put_file", noted)
        assert _publish(store, tmp_path_factory.mktemp("model")) == "1"
    return store, uploaded


def test_a_published_bundle_is_fetched_whole_and_verifies(published, tmp_path):
    store, _ = published
    assert store.versions() == ["1"]
    path = store.fetch("1", tmp_path / "cache")
    bundle = Bundle.open(path)
    assert bundle.version == "1"
    assert bundle.manifest == store.manifest("1")
    assert store.fetch("1", tmp_path / "cache") == path
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [path.name]


def test_the_manifest_is_uploaded_last_and_once(published):
    _, uploaded = published
    assert uploaded.index("manifest.json") == len(uploaded) - 1


def test_processes_that_fetch_at_the_same_time_share_one_download(published, tmp_path):
    store, _ = published
    with ThreadPoolExecutor(2) as pool:
        paths = set(pool.map(lambda _: store.fetch("1", tmp_path / "cache"), range(2)))
    assert len(paths) == 1
    Bundle.open(paths.pop())
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_stores_that_share_a_cache_do_not_share_bundles(bucket, tmp_path):
    for name in ("one", "two"):
        content = f'{{"store": "{name}"}}'.encode()
        bucket.put_object(Key=f"{name}/bundles/1/manifest.json", Body=content)
    stores = [BundleStore.open(f"s3://{bucket.name}/{name}") for name in ("one", "two")]
    paths = [store.fetch("1", tmp_path) for store in stores]
    assert [path.name[:2] for path in paths] == ["1-", "1-"]
    assert [(path / "manifest.json").read_text()[11:14] for path in paths] == ["one", "two"]


def test_a_version_is_visible_only_with_its_manifest(store, bucket, tmp_path):
    bucket.put_object(Key="marquee/bundles/1/tower.json", Body=b"{}")
    assert store.versions() == []
    assert store.taken_versions() == ["1"]
    with pytest.raises(BundleError, match="half-written"):
        store.fetch("1", tmp_path)


def test_an_upload_that_breaks_leaves_no_version(store, tmp_path, monkeypatch):
    def breaks(self, source, target):
        raise OSError("connection lost")

    monkeypatch.setattr(Store, "_put_file", breaks)
    with pytest.raises(OSError, match="connection lost"):
        _publish(store, tmp_path)
    assert store.taken_versions() == []


def test_promotion_and_rollback_move_the_pointer(store, bucket):
    assert store.production() is None
    store.promote("1")
    store.promote("2")
    assert BundleStore.open(store.url).production() == "2"
    assert store.rollback().version == "1"
    assert [entry.key for entry in bucket.objects.all()] == ["marquee/production.json"]


def test_a_store_that_cannot_be_reached_is_an_os_error(store, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    away = BundleStore.open(store.url)
    with pytest.raises(OSError):
        away.production()


def test_a_bucket_that_does_not_exist_is_an_os_error(store):
    missing = Store.open("s3://no-such-bucket/marquee")
    with pytest.raises(OSError):
        missing.promote("1")


def test_an_event_log_on_s3_is_written_and_read_as_a_directory_is(bucket):
    address = f"s3://{bucket.name}/feedback/"
    log = EventLog.open(address)
    assert (log.last_id(), is_log(address)) == ("0-0", False)
    event = Event("1", "10", EventType.CLICK, 5)
    log.append([StreamEntry("5-0", event), StreamEntry("86400000-1", event)])
    assert log.last_id() == "86400000-1"
    assert is_log(address)
    assert read_entries(address)["event_id"].to_pylist() == ["5-0", "86400000-1"]
