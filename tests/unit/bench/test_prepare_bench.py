"""The engines of `marquee bench prepare` do the same work."""

import polars as pl
import pytest

from bench.commands import prepare as bench_command
from bench.prepare import bench_prepare, growth
from bench.prepare_engines import with_polars
from tests.chunks import prepare_inline
from training.data import dataset
from training.data.lookalike import write_lookalike
from training.data.movielens import detect
from training.errors import UserError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The same events prepared by Marquee and by Polars."""
    root = tmp_path_factory.mktemp("engines")
    write_lookalike(root / "raw", "ml-1m", scale=0.02)
    with pytest.MonkeyPatch.context() as patch:
        prepare_inline(patch)(detect(root / "raw"), root / "marquee")
    with_polars(root / "raw", root / "polars", 1)
    return root


def test_users_are_described_alike(prepared):
    mine = dataset.read_features(prepared / "marquee", "user_features")
    theirs = pl.read_parquet(prepared / "polars" / "users.parquet")
    assert mine["user_id"].to_pylist() == theirs["userId"].to_list()
    assert mine["top_genres"].to_pylist() == theirs["top_genres"].to_list()
    for name in ("n_events", "rating_mean", "rating_std", "velocity_per_month", "recency_days"):
        assert mine[name].to_pylist() == pytest.approx(theirs[name].to_list(), rel=1e-4), name


def test_items_are_described_alike(prepared):
    mine = dataset.read_features(prepared / "marquee", "item_features")
    theirs = pl.read_parquet(prepared / "polars" / "items.parquet").sort("movieId")
    several = [n is not None and n > 3 for n in theirs["n_events"].to_list()]
    for name in ("n_events", "rating_mean", "rating_trend", "log_popularity"):
        pairs = zip(mine[name].to_pylist(), theirs[name].to_list(), several, strict=True)
        left, right = zip(*[(a, b) for a, b, kept in pairs if kept], strict=True)
        assert left == pytest.approx(right, rel=1e-3, abs=1e-3), name


def test_the_same_events_are_held_out(prepared):
    files = str(prepared / "polars" / "events" / "**" / "*.parquet")
    theirs = pl.read_parquet(files, hive_partitioning=True)["held_out"].sum()
    assert dataset.read_statistics(prepared / "marquee")["split"]["held_out"] == theirs


@pytest.mark.parametrize("cpus", ["0", "two", "1,", "999999"])
def test_a_number_of_cores_that_is_none_or_not_there_is_named(tmp_path, cpus):
    with pytest.raises(UserError, match="--cpus"):
        bench_command(cpus=cpus, folder=tmp_path)


def test_an_unknown_engine_is_named(tmp_path):
    with pytest.raises(UserError, match="--engines 'dask' is unknown"):
        bench_prepare(
            "ml-1m", scale=1.0, engines=("dask",), cpus=(1,), folder=tmp_path, report=print
        )


def test_what_is_fixed_is_not_counted_as_time_for_events():
    grown = growth({"seconds": 12.0}, 2.0, 5_000_000)
    assert grown == {"fixed_s": 2.0, "further_events_per_s": 500_000}
    assert growth({"seconds": 2.0}, 2.1, 10)["further_events_per_s"] is None
    assert growth({"error": "exit 1"}, 2.0, 10)["further_events_per_s"] is None
