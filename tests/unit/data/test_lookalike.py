import numpy as np
import pytest

from training.data.lookalike import SHAPES, write_lookalike
from training.errors import UserError


def test_a_lookalike_has_exactly_the_size_asked_for_and_no_repeats(tmp_path):
    shape = write_lookalike(tmp_path / "raw", "ml-1m", scale=0.02, seed=3)
    rows = np.loadtxt(tmp_path / "raw" / "ratings.csv", delimiter=",", skiprows=1)
    assert len(rows) == shape.events == round(1_000_209 * 0.02)
    assert len(np.unique(rows[:, 0])) == shape.users == round(6_040 * 0.02)
    assert len(np.unique(rows[:, :2], axis=0)) == len(rows)
    assert set(np.unique(rows[:, 2])) <= set(np.arange(1, 11) / 2)
    lines = (tmp_path / "raw" / "movies.csv").read_text().count("\n")
    assert lines == 1 + shape.items


def test_items_are_zipf_activity_is_skewed_and_taste_drifts(tmp_path):
    write_lookalike(tmp_path / "raw", "ml-1m", scale=0.1)
    rows = np.loadtxt(tmp_path / "raw" / "ratings.csv", delimiter=",", skiprows=1)
    popularity = np.sort(np.unique(rows[:, 1], return_counts=True)[1])[::-1]
    assert popularity[: len(popularity) // 10].sum() > 0.3 * len(rows)
    activity = np.unique(rows[:, 0], return_counts=True)[1]
    assert activity.min() >= 20
    assert np.mean(activity) > 1.2 * np.median(activity)
    early = rows[:, 3] < np.quantile(rows[:, 3], 0.2)
    late = rows[:, 3] > np.quantile(rows[:, 3], 0.8)
    assert rows[late, 1].mean() > 1.1 * rows[early, 1].mean()


def test_the_same_seed_gives_the_same_files(tmp_path):
    for name in ("one", "two"):
        write_lookalike(tmp_path / name, "ml-1m", scale=0.005, seed=1)
    files = [(tmp_path / name / "ratings.csv").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]


def test_the_published_sizes_are_those_asked_for(tmp_path):
    shape = SHAPES["ml-25m"]
    assert (shape.events, shape.users, shape.items) == (25_000_095, 162_541, 62_423)
    with pytest.raises(UserError, match="--like 'ml-3m' is unknown"):
        write_lookalike(tmp_path, "ml-3m")
