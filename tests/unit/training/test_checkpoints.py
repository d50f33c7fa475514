"""Checkpoints that a kill cut off, found without Ray."""

from pathlib import Path

import pytest

from tests.unit.training.test_fit import RECIPE, planted
from training.checkpoints import Storage
from training.errors import UserError
from training.fit import BrokenState, Learner, epochs_saved
from training.towers import saved

RECORD = "checkpoint_manager_snapshot.json"


def epochs(count):
    return [{"epoch": n + 1, "loss": 1.0, "ndcg": 0.1, "seconds": 1.0} for n in range(count)]


@pytest.fixture(scope="module")
def learner():
    return Learner(RECIPE, planted(n_users=5, n_items=20), seed=0)


@pytest.fixture
def storage(learner, tmp_path):
    """Two checkpoints, after one epoch and after two."""
    for count in (1, 2):
        directory = tmp_path / "towers" / f"checkpoint_2026-11-21_10-00-0{count}"
        directory.mkdir(parents=True)
        learner.save(directory, epochs(count))
    (tmp_path / "towers" / RECORD).write_text('{"ray_vers')  # cut off, too
    return Storage.open(str(tmp_path))


def newest(storage) -> Path:
    return Path(storage.checkpoints("towers")[-1].path)


def test_the_last_whole_checkpoint_is_gone_on_with(storage):
    whole, broken = saved(storage)
    assert [len(found.epochs) for found in whole] == [1, 2] and broken is None
    assert whole[-1].checkpoint.path == str(newest(storage))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_checkpoint_that_was_cut_off_anywhere_is_passed_over_by_name(storage, share):
    file = newest(storage) / "learner.pt"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(BrokenState):
        epochs_saved(newest(storage))
    whole, broken = saved(storage)
    assert [len(found.epochs) for found in whole] == [1]
    assert broken == newest(storage).name


def test_a_checkpoint_without_its_file_does_not_count_and_a_later_whole_one_does(storage, learner):
    (newest(storage) / "learner.pt").unlink()
    assert saved(storage)[1] == newest(storage).name
    later = newest(storage).with_name("checkpoint_2026-11-21_10-00-09")
    later.mkdir()
    learner.save(later, epochs(2))
    whole, broken = saved(storage)
    assert [len(found.epochs) for found in whole] == [1, 2] and broken is None


def test_rays_record_is_put_away_and_checkpoints_stay_until_the_run_is_removed(storage, tmp_path):
    record = tmp_path / "towers" / RECORD
    assert record.exists()
    storage.forget("towers")
    storage.forget("towers")
    assert not record.exists() and len(storage.checkpoints("towers")) == 2
    storage.remove("towers")
    storage.remove("towers")
    assert storage.checkpoints("towers") == [] and saved(storage) == ([], None)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"checkpoints cannot be kept in .*file/here: "):
        Storage.open(str(tmp_path / "file" / "here"))
