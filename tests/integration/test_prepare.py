"""Data preparation as a user runs it, on a real Ray."""

import json
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from tests.chunks import prepare_inline
from tests.datasets import assert_same
from training.data import dataset
from training.data.commands import register
from training.data.features import genre_matrix, item_features, user_features
from training.data.movielens import detect
from training.data.prepare import prepare
from training.data.splits import TEST, split
from training.data.synthetic import write_synthetic
from training.errors import UserError

pytestmark = pytest.mark.integration

REAL_DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
SIZES = {"chunk_bytes": 20_000, "events_per_bucket": 700}
HEADER = "userId,movieId,rating,timestamp\n"


def _real(name):
    if not (REAL_DATA / name).is_dir():
        pytest.skip(f"{name} is not beside the repository (../shared/data)")
    return REAL_DATA / name


def _run(*arguments):
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, ["prepare", *map(str, arguments)])


def _movielens(directory, lines):
    directory.mkdir(exist_ok=True)
    (directory / "ratings.csv").write_text(HEADER + "\n".join(lines) + "\n")
    return directory


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory, ray_local):
    """Raw and prepared: many chunks and many buckets, so that order must survive the shuffle."""
    root = tmp_path_factory.mktemp("prepared")
    write_synthetic(root / "raw", users=150, items=120, events=5_000, seed=1)
    prepare(detect(root / "raw"), root / "data", **SIZES)
    return root


@pytest.fixture
def inline(monkeypatch):
    """`prepare`, here and as a command, with its tasks in this process: their work is the same."""
    return prepare_inline(monkeypatch)


def test_every_event_arrives_once_ordered_by_user_and_time(synthetic):
    raw = np.loadtxt(synthetic / "raw" / "ratings.csv", delimiter=",", skiprows=1)
    raw = raw[np.lexsort((raw[:, 3], raw[:, 0]))]
    data = dataset.load(synthetic / "data")
    assert len(list((synthetic / "data" / "events").glob("bucket=*"))) in (7, 8, 9)
    assert np.array_equal(data.user_ids[data.user], raw[:, 0])
    assert np.array_equal(data.item_ids[data.item], raw[:, 1])
    assert np.array_equal(data.rating, raw[:, 2].astype(np.float32))
    assert np.array_equal(data.timestamp, raw[:, 3])
    starts = np.flatnonzero(np.diff(data.user, prepend=-1))
    assert np.array_equal(data.offsets, [*starts, data.n_events])


def test_features_are_those_of_the_feature_functions_over_all_events(synthetic):
    data = dataset.load(synthetic / "data")
    names, genres = genre_matrix(data.items["genres"].to_pylist())
    users = user_features(
        data.user,
        data.item,
        data.rating,
        data.timestamp,
        n_users=data.n_users,
        genre_names=names,
        genres=genres,
        now=int(data.timestamp.max()),
    )
    items = item_features(data.item, data.rating, data.timestamp, n_items=data.n_items)
    for name in users.column_names:
        assert data.users[name].to_pylist() == users[name].to_pylist()
    for name in items.column_names:
        expected, stored = items[name].to_numpy(), data.items[name].to_numpy()
        assert np.allclose(stored, expected, rtol=1e-5, equal_nan=True)


def test_appending_a_day_gives_what_preparing_everything_at_once_gives(synthetic, tmp_path):
    raw = synthetic / "raw"
    header, *lines = (raw / "ratings.csv").read_text().splitlines()
    by_time = sorted(lines, key=lambda line: int(line.rsplit(",", 1)[1]))
    _movielens(tmp_path / "first", by_time[:4_900])
    (tmp_path / "first" / "movies.csv").write_bytes((raw / "movies.csv").read_bytes())
    day = _movielens(tmp_path / "day", by_time[4_900:])
    prepare(detect(tmp_path / "first"), tmp_path / "data", **SIZES)
    result = _run("--append", day, tmp_path / "data")
    assert result.exit_code == 0, result.exception
    assert_same(tmp_path / "data", synthetic / "data")


def test_statistics_describe_the_events(synthetic):
    data = dataset.load(synthetic / "data")
    statistics = data.statistics
    assert statistics["counts"] == {
        "events": 5_000,
        "users": 150,
        "items": 120,
        "items_with_events": len(np.unique(data.item)),
        "rejected": 0,
    }
    assert statistics["rating"]["mean"] == pytest.approx(data.rating.mean(), abs=1e-4)
    assert statistics["rating"]["std"] == pytest.approx(data.rating.std(), abs=1e-4)
    assert statistics["time_range"] == [data.timestamp.min(), data.timestamp.max()]
    assert (data.entity, data.has_ratings, data.has_time) == ("movie", True, True)


def test_only_the_prepared_files_are_left_behind(synthetic):
    assert sorted(path.name for path in synthetic.iterdir()) == ["data", "raw"]
    assert sorted(path.name for path in (synthetic / "data").iterdir()) == [
        "events",
        "item_features.parquet",
        "items.parquet",
        "rejects.parquet",
        "state",
        "statistics.json",
        "user_features.parquet",
        "user_totals.parquet",
        "users.parquet",
    ]


def test_bad_events_are_kept_aside_with_their_row_and_reason(inline, tmp_path):
    good = [f"{user},{item},4,{100 + item}" for user in (1, 2) for item in range(1, 6)]
    bad = [
        "1,9,7,500",
        "1,9,nan,500",
        ",9,3,500",
        "1,9,3,-5",
        f"1,9,3,{int(time.time()) + 10**6}",
        "2,5,1,105",
    ]
    raw = _movielens(tmp_path / "raw", [*good, *bad])
    result = _run(raw, tmp_path / "data", "--max-rejects", "0.5", "--json")
    statistics = json.loads(result.stdout)
    assert statistics["counts"]["events"] == 10
    rejects = pq.read_table(tmp_path / "data" / "rejects.parquet").to_pylist()
    assert [(reject["row"], reject["reason"]) for reject in rejects] == [
        (12, "rating out of range"),
        (13, "rating not finite"),
        (14, "no user"),
        (15, "time before 1970"),
        (16, "time in the future"),
        (17, "duplicate event"),
    ]
    assert (rejects[5]["user_id"], rejects[5]["item_id"], rejects[5]["rating"]) == ("2", "5", 1.0)
    assert statistics["rejected"] == dict.fromkeys([r["reason"] for r in rejects], 1)
    data = dataset.load(tmp_path / "data")
    assert data.rating.tolist() == [4.0] * 10  # of two equal events the first is kept


def test_too_many_rejects_stop_the_run_and_leave_the_old_output(inline, tmp_path, synthetic):
    raw = _movielens(tmp_path / "raw", ["1,1,4,10", "1,2,9,11", "2,1,0.1,12", "2,2,4,13000000000"])
    old = (synthetic / "data" / "statistics.json").read_bytes()
    result = _run(raw, synthetic / "data")
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith(
        "3 of 4 events are rejected, more than 1%: rating out of range: 2 (rows 3, 4); "
        "time in the future: 1 (rows 5)"
    )
    assert (synthetic / "data" / "statistics.json").read_bytes() == old
    assert not list(synthetic.glob(".*"))


def test_too_many_duplicates_stop_the_run(inline, tmp_path):
    raw = _movielens(tmp_path / "raw", ["1,1,4,10", "2,1,4,10", "1,1,4,10"])
    result = _run(raw, tmp_path / "data")
    assert isinstance(result.exception, UserError)
    assert "duplicate event: 1 (rows 4)" in str(result.exception)
    assert not (tmp_path / "data").exists()


def test_a_text_for_a_number_is_one_line_that_names_the_row(tmp_path, ray_local):
    raw = _movielens(tmp_path / "raw", ["1,1,4,10", "1,2,good,11", "2,2,4,13"])
    result = _run(raw, tmp_path / "data")
    assert isinstance(result.exception, UserError)
    assert str(result.exception) == (
        f"{raw}/ratings.csv: row 3, column 'rating': 'good' is not a number"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_implicit_events_of_text_ids_without_time_keep_their_order(inline, tmp_path):
    plays = ["who,song", "bo,s3", "al,s1", "bo,s1", "bo,s2"]
    (tmp_path / "plays.csv").write_text("\n".join(plays))
    (tmp_path / "songs.csv").write_text("song,title,genre\ns1,One,pop\ns9,Nine,\n")
    columns = ("--user", "who", "--item", "song", "--items", tmp_path / "songs.csv")
    result = _run(tmp_path / "data", "--events", tmp_path / "plays.csv", *columns)
    assert result.exit_code == 0, result.exception
    data = dataset.load(tmp_path / "data")
    assert (data.entity, data.has_ratings, data.has_time) == ("item", False, False)
    assert data.user_ids.tolist() == ["al", "bo"]
    assert data.item_ids.tolist() == ["s1", "s2", "s3", "s9"]
    assert data.item_ids[data.item].tolist() == ["s1", "s3", "s1", "s2"]
    assert data.items["title"].to_pylist() == ["One", "s2", "s3", "Nine"]
    assert data.items["genres"].to_pylist() == [["pop"], [], [], []]
    assert np.isnan(data.rating).all()
    assert not data.timestamp.any()
    assert data.users["recency_days"].null_count == 2


def test_a_single_user_is_prepared_and_an_item_without_metadata_is_kept(inline, tmp_path):
    raw = _movielens(tmp_path / "raw", ["7,20,4,10", "7,3,5,10", "7,100,3,5"])
    (raw / "movies.csv").write_text("movieId,title,genres\n3,Three (2003),Drama\n")
    assert _run(raw, tmp_path / "data").exit_code == 0
    data = dataset.load(tmp_path / "data")
    assert data.item_ids.tolist() == [3, 20, 100]
    assert data.items["title"].to_pylist() == ["Three (2003)", "20", "100"]
    assert data.item_ids[data.item].tolist() == [100, 20, 3]  # equal times: input order
    with pytest.raises(UserError, match="single user"):
        split(data, "user-temporal")


def test_the_fingerprint_follows_the_input_and_how_it_is_read(inline, tmp_path):
    (tmp_path / "e.csv").write_text("u,i,j\n1,1,2\n2,3,3\n")

    def fingerprint(item):
        result = _run(
            tmp_path / "e.csv", tmp_path / "data", "--user", "u", "--item", item, "--json"
        )
        return json.loads(result.stdout)["fingerprint"]

    first = fingerprint("i")
    assert fingerprint("i") == first
    assert fingerprint("j") != first


def test_what_is_not_a_whole_prepared_directory_is_refused(tmp_path, synthetic):
    with pytest.raises(UserError, match="not a prepared data set"):
        dataset.load(tmp_path)
    (tmp_path / "statistics.json").write_bytes((synthetic / "data/statistics.json").read_bytes())
    with pytest.raises(UserError, match="not whole"):
        dataset.load(tmp_path)
    statistics = json.loads((tmp_path / "statistics.json").read_text())
    (tmp_path / "statistics.json").write_text(json.dumps(statistics | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        dataset.load(tmp_path)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "events", "users", "items"),
    [("ml-latest-small", 100_836, 610, 9_742), ("ml-100k", 100_000, 943, 1_682)],
)
def test_published_data_sets_have_their_published_sizes(
    inline, tmp_path, name, events, users, items
):
    statistics = inline(detect(_real(name)), tmp_path / "data")
    counts = statistics["counts"]
    assert (counts["events"], counts["users"], counts["items"]) == (events, users, items)
    assert statistics["rejected"] == {}


@pytest.mark.data
def test_splits_of_movielens_1m_agree_with_the_reference(inline, tmp_path):
    inline(detect(_real("ml-1m")), tmp_path / "data")
    data = dataset.load(tmp_path / "data")
    left = split(data, "leave-one-out")
    kept = left.fold >= 0
    assert kept.sum() == 999_611
    assert len(np.unique(data.item[kept])) == left.catalogue.sum() == 3_416
    assert (left.fold == TEST).sum() == 6_040
    test = split(data, "global-temporal").fold == TEST
    assert len(np.unique(data.user[test])) == 1_179
    for protocol, ndcg in (("leave-one-out", 0.0178), ("user-temporal", 0.1095)):
        assert _popularity_ndcg(data, split(data, protocol)) == pytest.approx(ndcg, abs=0.0005)


def _popularity_ndcg(data, cut, k=10):
    """NDCG@10 of the most popular unseen items."""
    train, test = cut.fold >= 0, cut.fold == TEST
    train &= ~test
    popular = np.argsort(-np.bincount(data.item[train], minlength=data.n_items), kind="stable")
    discount = 1 / np.log2(np.arange(2, k + 2))
    scores = []
    for user in np.unique(data.user[test]):
        rows = slice(data.offsets[user], data.offsets[user + 1])
        seen, relevant = data.item[rows][train[rows]], data.item[rows][test[rows]]
        shown = _unseen(popular[: k + len(seen)], seen)[:k]
        ideal = discount[: len(relevant)].sum()
        scores.append(discount[np.isin(shown, relevant)].sum() / ideal)
    return float(np.mean(scores))


def _unseen(items, seen):
    return items[~np.isin(items, seen)]
