import numpy as np
import pyarrow.csv as pacsv
import pytest

from training.data.catalogue import read_catalogue
from training.data.movielens import detect
from training.data.synthetic import GENRES, write_synthetic
from training.data.titles import invent_titles
from training.errors import UserError

SIZE = {"users": 120, "items": 200, "events": 4_000}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic") / "raw"
    write_synthetic(out, **SIZE, seed=3)
    return out


@pytest.fixture(scope="module")
def ratings(directory):
    return pacsv.read_csv(directory / "ratings.csv").to_pandas()


def test_it_has_the_sizes_asked_for_and_nobody_watches_twice(ratings):
    assert len(ratings) == SIZE["events"]
    assert ratings.userId.nunique() == SIZE["users"]
    assert ratings.movieId.between(1, SIZE["items"]).all()
    assert not ratings.duplicated(["userId", "movieId"]).any()
    assert ratings.groupby("userId").size().min() >= 5


def test_it_is_a_movielens_data_set(directory):
    source = detect(directory)
    catalogue = read_catalogue(source.catalogue)
    assert source.entity == "movie"
    assert catalogue["item_id"].to_pylist() == list(range(1, SIZE["items"] + 1))
    assert len(set(catalogue["title"].to_pylist())) == SIZE["items"]
    assert catalogue["year"].null_count == 0
    assert {genre for row in catalogue["genres"].to_pylist() for genre in row} <= set(GENRES)


def test_ratings_are_half_stars_and_times_ascend_over_years(ratings):
    assert set(ratings.rating.unique()) <= {stars / 2 for stars in range(1, 11)}
    assert ratings.rating.std() > 0.5
    ascending = ratings.groupby("userId").timestamp.apply(lambda time: time.is_monotonic_increasing)
    assert ascending.all()
    assert ratings.timestamp.max() - ratings.timestamp.min() > 4 * 365 * 86_400


def test_the_seed_decides_every_byte(directory, tmp_path):
    write_synthetic(tmp_path / "same", **SIZE, seed=3)
    write_synthetic(tmp_path / "other", **SIZE, seed=4)
    for name in ("ratings.csv", "movies.csv", "planted.json"):
        text = (directory / name).read_text()
        assert (tmp_path / "same" / name).read_text() == text
        assert (tmp_path / "other" / name).read_text() != text


def test_the_recent_item_predicts_the_next_far_better_than_popularity(tmp_path):
    write_synthetic(tmp_path / "raw", users=600, items=300, events=24_000, seed=0)
    table = pacsv.read_csv(tmp_path / "raw" / "ratings.csv").to_pandas()
    user, item = table.userId.to_numpy(), table.movieId.to_numpy()
    same_user = user[1:] == user[:-1]
    before, after = item[:-1][same_user], item[1:][same_user]
    half = len(before) // 2
    follows = np.zeros((301, 301))
    np.add.at(follows, (before[:half], after[:half]), 1)
    likely = np.argsort(-follows, axis=1)[:, :10]
    popular = np.argsort(-np.bincount(after[:half], minlength=301))[:10]
    by_recent = (likely[before[half:]] == after[half:, None]).any(axis=1).mean()
    by_popularity = np.isin(after[half:], popular).mean()
    assert by_recent > 2 * by_popularity


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"users": 1, "items": 100, "events": 20}, "too few"),
        ({"users": 10, "items": 100, "events": 20}, "--events from 50 to 500"),
        ({"users": 10, "items": 100, "events": 501}, "--events from 50 to 500"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(tmp_path, size, message):
    with pytest.raises(UserError, match=message):
        write_synthetic(tmp_path / "raw", **size)
    assert not any(tmp_path.iterdir())


def test_everybody_may_watch_half_of_everything(tmp_path):
    write_synthetic(tmp_path / "raw", users=8, items=20, events=80)
    lines = (tmp_path / "raw" / "ratings.csv").read_text().splitlines()
    assert len(set(line.rsplit(",", 2)[0] for line in lines[1:])) == 80


def test_titles_stay_different_beyond_the_word_lists():
    titles = invent_titles(30_000, np.random.default_rng(0))
    assert len(set(titles)) == 30_000
