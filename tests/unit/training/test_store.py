"""A local store: versions, the production pointer, publishers at the same time."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from app.adapters.store import Bundles
from tests.bundles import tiny_contents
from training.bundle_writer import write_files, write_manifest
from training.errors import UserError
from training.model.bundle import Bundle, BundleError
from training.model.store import BundleStore
from training.store import Store


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def publish(store, tmp_path):
    """Add one more version."""

    def add():
        with store.staging() as directory:
            model = directory.with_name(f"{directory.name}-model")
            model.mkdir()
            manifest = write_files(directory, tiny_contents(model, n_items=12, n_users=3))
            return store.add(directory, manifest)

    return add


def test_a_store_without_a_directory_is_empty(tmp_path):
    store = BundleStore.open(str(tmp_path / "none"))
    assert store.versions() == []
    assert store.production() is None


def test_versions_count_up_and_verify(store, publish, tmp_path):
    assert [publish(), publish()] == ["1", "2"]
    assert store.versions() == ["1", "2"]
    for version in store.versions():
        bundle = Bundle.open(store.fetch(version, tmp_path / "unused"))
        assert bundle.version == version
        assert store.manifest(version) == bundle.manifest
    assert not (tmp_path / "unused").exists()


def test_versions_are_ordered_as_numbers(store, publish):
    publish()
    path = store.bundle_path("1")
    for version in ("9", "10"):
        store.filesystem.create_dir(store.bundle_path(version))
        store.filesystem.copy_file(
            f"{path}/manifest.json", f"{store.bundle_path(version)}/manifest.json"
        )
    assert store.versions() == ["1", "9", "10"]


def test_an_unfinished_version_is_invisible_and_its_number_is_not_used_again(
    store, publish, tmp_path
):
    store.filesystem.create_dir(store.bundle_path("1"))
    assert store.versions() == []
    with pytest.raises(BundleError, match="half-written"):
        store.fetch("1", tmp_path)
    assert publish() == "2"
    assert store.versions() == ["2"]


def test_publishers_at_the_same_time_get_different_versions(store, publish):
    with ThreadPoolExecutor(4) as pool:
        versions = list(pool.map(lambda _: publish(), range(4)))
    assert sorted(versions) == ["1", "2", "3", "4"]
    assert [store.manifest(version).version for version in store.versions()] == store.versions()


def test_a_number_taken_while_publishing_is_passed_over(store, publish, monkeypatch):
    publish()
    answers = iter(["1", "1", "2"])  # as seen by a publisher that looked too early, twice
    monkeypatch.setattr(Store, "_next_version", lambda self: next(answers))
    assert publish() == "2"
    assert store.manifest("2").version == "2"


def test_a_bundle_that_does_not_verify_is_not_added(store):
    with pytest.raises(BundleError), store.staging() as directory:
        model = directory.with_name("model")
        model.mkdir(parents=True)
        manifest = write_files(directory, tiny_contents(model, n_items=12, n_users=3))
        (directory / "tower.json").write_text("{}")
        store.add(directory, manifest)
    assert store.taken_versions() == []


def test_staging_leaves_nothing_behind(store, tmp_path):
    with pytest.raises(RuntimeError), store.staging() as directory:
        (directory / "half").write_text("")
        raise RuntimeError
    assert list((tmp_path / "store" / "bundles").iterdir()) == []


def test_promotion_remembers_what_it_replaced_and_rollback_returns_to_it(store):
    for version in ("1", "2", "3"):
        store.promote(version)
    assert store.pointer().previous == ["2", "1"]
    assert [store.rollback().version, store.rollback().version] == ["2", "1"]
    with pytest.raises(UserError, match="no earlier production version"):
        store.rollback()
    assert store.production() == "1"


def test_promoting_the_current_version_changes_nothing(store):
    store.promote("1")
    first = store.promote("2")
    assert store.promote("2") == first
    assert store.rollback().version == "1"


def test_rolling_back_an_empty_store_is_a_users_mistake(store):
    with pytest.raises(UserError, match="marquee promote"):
        store.rollback()


def test_the_pointer_is_plain_json_and_written_whole(store, tmp_path):
    store.promote("4")
    pointer = json.loads((tmp_path / "store" / "production.json").read_text())
    assert pointer.keys() == {"version", "previous", "changed_at"}
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["production.json"]


@pytest.fixture
def away(store, publish):
    """The store with five versions, as if it were on another machine: its bundles are fetched."""
    publish()
    bundles = Path(store.bundle_path("1")).parent
    manifest = Bundle.open(bundles / "1").manifest
    for version in ("2", "3", "4", "5"):
        shutil.copytree(bundles / "1", bundles / version)
        write_manifest(bundles / version, manifest.model_copy(update={"version": version}))
    files = pafs.SubTreeFileSystem(store.root, pafs.LocalFileSystem())
    return BundleStore("away", files, ".")


def test_left_behind_are_all_before_the_version_that_answers_but_the_one_it_replaced(store, away):
    assert away.left_behind() == []
    for version in ("1", "3", "4"):
        store.promote(version)
    assert away.left_behind() == ["1", "2"]  # 5 may be staged
    store.rollback()
    assert away.left_behind() == ["2"]


def test_downloads_go_when_their_version_is_left_behind_and_others_stay(store, away, tmp_path):
    store.promote("1")
    here = Bundles(away, tmp_path / "here")
    paths = {version: here.locate(version) for version in ("1", "2", "3", "5")}
    foreign = tmp_path / "here" / "1-0123456789ab"
    foreign.mkdir()
    store.promote("3")
    store.promote("4")
    paths["4"] = here.locate("4")
    left = {version for version, path in paths.items() if path.is_dir()}
    assert left == {"3", "4", "5"}
    assert foreign.is_dir()
    assert Bundle.open(here.locate("1")).version == "1"  # a batch still on its way needs it


def test_a_spoilt_pointer_is_named(store, tmp_path):
    store.promote("1")
    (tmp_path / "store" / "production.json").write_text("{")
    with pytest.raises(BundleError, match="production.json"):
        store.production()


def test_an_unknown_version_is_named(store, publish, tmp_path):
    publish()
    with pytest.raises(BundleError, match="no version '7'"):
        store.fetch("7", tmp_path)


@pytest.mark.parametrize("url", ["s3://", "http://host/store", "gs://bucket"])
def test_an_address_that_is_no_store_is_refused(url):
    with pytest.raises(ValueError, match="s3://bucket/prefix"):
        BundleStore.open(url)
    with pytest.raises(UserError, match="--store"):
        Store.open(url)


def test_a_file_is_no_store(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="name a directory"),
        Store.open(str(tmp_path / "file")).staging(),
    ):
        pass
