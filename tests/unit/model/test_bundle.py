"""Reading a bundle, and refusing whatever is not one."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.bundles import tiny_bundle
from training.model.bundle import Bundle, BundleError
from training.model.manifest import Manifest, sha256


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("whole") / "bundle")


@pytest.fixture(scope="module")
def text_ids(tmp_path_factory):
    return Bundle.open(tiny_bundle(tmp_path_factory.mktemp("text") / "bundle", id_type="str"))


@pytest.fixture
def copied(whole, tmp_path):
    """A bundle to spoil."""
    return shutil.copytree(whole, tmp_path / "bundle")


def _edit_manifest(path, edit):
    manifest = json.loads((path / "manifest.json").read_text())
    edit(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def _replace(path, name, content):
    """Change a file so that only its meaning is wrong: size and checksum are kept up."""
    file = path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.save(file, content)

    def edit(manifest):
        manifest["files"][name] = {"sha256": sha256(file), "bytes": file.stat().st_size}

    _edit_manifest(path, edit)


def _refusal(path, **options):
    with pytest.raises(BundleError) as refusal:
        Bundle.open(path, **options)
    message = str(refusal.value)
    assert "\n" not in message
    return message


def test_arrays_are_mapped_read_only_and_fit_the_manifest(whole):
    bundle = Bundle.open(whole)
    assert bundle.version == "1"
    assert bundle.item_vectors.shape == (bundle.manifest.n_items, bundle.manifest.dimension)
    assert bundle.user_history.dtype == np.int32
    for array in (bundle.item_vectors, bundle.user_history, bundle.history(1)):
        assert not array.flags.writeable
        assert not array.flags.owndata
    assert (bundle.ranker_dir / "ranker.json").is_file()
    assert bundle.index_path.is_dir()
    assert (bundle.tower_dir / "tower.json").is_file()


def test_the_catalogue_is_columns_by_item_idx(whole):
    bundle = Bundle.open(whole)
    items = bundle.items
    assert len(items) == bundle.manifest.n_items
    assert items.ids[:2] == [10, 20]
    assert items.titles[1] == "Film 2"
    assert items.genres[11] == []
    assert items.years[9] is None
    assert items.avg_rating.dtype == np.float32
    assert np.isnan(items.avg_rating[6])
    assert items.payload(6).keys() == {"item_id", "genres", "year"}
    assert items is bundle.items


def test_popularity_falls_from_its_first_item(whole):
    bundle = Bundle.open(whole)
    assert (np.diff(bundle.popularity_score[bundle.popularity]) <= 0).all()
    assert sorted(bundle.popularity) == list(range(bundle.manifest.n_items))


@pytest.mark.parametrize(("user_id", "row"), [(1, 0), (40, 39), ("7", 6)])
def test_an_integer_id_is_found_as_number_or_text(whole, user_id, row):
    bundle = Bundle.open(whole)
    assert bundle.user_row(user_id) == row
    start, stop = bundle.user_offsets[row : row + 2]
    np.testing.assert_array_equal(bundle.history(user_id), bundle.user_history[start:stop])
    assert len(bundle.history(user_id)) >= 3


@pytest.mark.parametrize("user_id", [0, 41, -1, 2**70, "", "x", " 7", "07", "7.0", "1_0", "٧"])
def test_an_unknown_integer_id_has_no_row_and_an_empty_history(whole, user_id):
    bundle = Bundle.open(whole)
    assert bundle.user_row(user_id) == -1
    assert bundle.history(user_id).tolist() == []
    assert bundle.history(user_id).dtype == np.int32
    assert bundle.item_index(user_id) == -1


def test_text_ids_are_found_as_written(text_ids):
    assert text_ids.manifest.entity.id_field == "item_id"
    assert text_ids.user_row("u000003") == 2
    assert [text_ids.user_row(user) for user in ("u3", "", 3, "é")] == [-1] * 4
    assert text_ids.item_index("i000020") == 1
    assert text_ids.item_index(20) == -1


def test_items_are_found_as_number_or_text(whole):
    bundle = Bundle.open(whole)
    assert [bundle.item_index(item) for item in (10, "20", 15)] == [0, 1, -1]


def test_a_directory_that_is_not_there(tmp_path):
    assert "no such bundle directory" in _refusal(tmp_path / "none")


def test_a_half_written_bundle_has_no_manifest(copied):
    (copied / "manifest.json").unlink()
    assert "half-written" in _refusal(copied)


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"'])
def test_a_manifest_that_is_not_one(copied, text):
    (copied / "manifest.json").write_text(text)
    assert "manifest.json" in _refusal(copied)


def test_another_format_is_named_with_the_one_that_is_read(copied):
    _edit_manifest(copied, lambda manifest: manifest.update(format=2))
    assert "format 2, but this release reads format 1" in _refusal(copied)


def test_a_field_that_the_manifest_does_not_have_is_named(copied):
    _edit_manifest(copied, lambda manifest: manifest.update(shiny=1))
    assert "shiny" in _refusal(copied)


@pytest.mark.parametrize("name", ["../escape", "/etc/hostname", "a\\b"])
def test_a_manifest_cannot_name_files_outside_the_bundle(copied, name):
    record = {"sha256": "0" * 64, "bytes": 0}
    _edit_manifest(copied, lambda manifest: manifest["files"].update({name: record}))
    assert "leaves the bundle" in _refusal(copied)


@pytest.mark.parametrize("name", ["item_vectors.npy", "tower.safetensors", "drift.json"])
def test_a_missing_file_is_named(copied, name):
    (copied / name).unlink()
    assert f"{name}: missing" in _refusal(copied, verify=False)


def test_a_missing_file_of_the_index_is_named(copied):
    next(file for file in (copied / "index").rglob("*.dat")).unlink()
    assert ".dat: missing" in _refusal(copied)


@pytest.mark.parametrize("name", ["ranker.txt", "index/"])
def test_a_manifest_that_lists_too_little_is_refused(copied, name):
    def forget(manifest):
        for listed in [file for file in manifest["files"] if file.startswith(name)]:
            del manifest["files"][listed]

    _edit_manifest(copied, forget)
    assert f"does not list {name}" in _refusal(copied)


def test_a_bundle_of_an_earlier_release_has_no_neighbours(copied):
    names = ("neighbours.npy", "neighbour_weights.npy")

    def forget(manifest):
        for name in names:
            del manifest["files"][name]

    for name in names:
        (copied / name).unlink()
    _edit_manifest(copied, forget)
    bundle = Bundle.open(copied)
    assert bundle.neighbours.shape == bundle.neighbour_weights.shape == (60, 0)
    assert (bundle.neighbours.dtype, bundle.neighbour_weights.dtype) == (np.int32, np.float32)


def test_a_truncated_file_is_named_even_without_checksums(copied):
    file = copied / "user_history.npy"
    file.write_bytes(file.read_bytes()[:-4])
    assert "user_history.npy" in _refusal(copied, verify=False)


@pytest.mark.parametrize("name", ["item_vectors.npy", "items.parquet", "ranker.txt"])
def test_a_flipped_byte_is_found_by_its_checksum(copied, name):
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    assert f"{name}: content does not match" in _refusal(copied)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("item_vectors.npy", np.zeros((60, 64), np.float32)),
        ("item_vectors.npy", np.zeros((60, 128), np.float64)),
        ("popularity.npy", np.zeros(59, np.int32)),
        ("neighbours.npy", np.zeros((60, 99), np.int32)),
        ("user_ids.npy", np.arange(40.0)),
        ("user_features.npy", np.zeros((40, 99), np.float32)),
    ],
)
def test_an_array_of_another_shape_or_type_is_named(copied, name, array):
    _replace(copied, name, array)
    assert f"{name}: {array.dtype}" in _refusal(copied)


def test_a_file_that_is_no_array_is_named(copied):
    _replace(copied, "popularity.npy", b"not an array")
    assert "popularity.npy: not a NumPy array file" in _refusal(copied)


def test_offsets_must_divide_the_history(copied):
    offsets = np.load(copied / "user_offsets.npy")
    _replace(copied, "user_offsets.npy", offsets[::-1].copy())
    assert "user_offsets.npy: does not divide" in _refusal(copied)


def test_user_ids_must_ascend(copied):
    _replace(copied, "user_ids.npy", np.load(copied / "user_ids.npy")[::-1].copy())
    assert "user_ids.npy: ids are not strictly ascending" in _refusal(copied)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"features": ["age"]}', "other features"),
        (b"{}", "no list of features"),
        (b"[]", "no list of features"),
    ],
)
def test_a_ranker_of_other_features_is_refused(copied, content, reason):
    _replace(copied, "ranker.json", content)
    message = _refusal(copied)
    assert "ranker.json" in message
    assert reason in message


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("oracle", "no ranker of kind 'oracle'"), ("xgboost", "does not list ranker.ubj")],
)
def test_a_ranker_of_another_kind_must_be_known_and_there(copied, kind, reason):
    record = json.loads((copied / "ranker.json").read_text())
    _replace(copied, "ranker.json", json.dumps(record | {"kind": kind}).encode())
    assert reason in _refusal(copied)


def test_the_manifest_survives_json(whole):
    manifest = Bundle.open(whole).manifest
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_reading_a_bundle_needs_none_of_the_heavy_packages(whole):
    check = (
        "import sys; from training.model.bundle import Bundle; import training.model.store\n"
        f"bundle = Bundle.open({str(whole)!r}); bundle.items\n"
        "heavy = {'torch', 'ray', 'redis', 'mlflow', 'qdrant_client', 'qdrant_edge'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
