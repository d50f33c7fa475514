import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.chunks import prepare_inline
from tests.datasets import make_dataset, random_dataset
from training.data.explore import Exploration, rank_curve
from training.data.movielens import detect
from training.data.plots import PLOTS
from training.data.report import render, write_page, write_report
from training.data.synthetic import write_synthetic
from training.errors import UserError


def _with_genres(data, genres):
    items = data.items.set_column(2, "genres", pa.array(genres, pa.list_(pa.string())))
    return Exploration(type(data)(**{**data.__dict__, "items": items}))


def test_counts_are_those_of_the_events():
    seen = Exploration(make_dataset([0, 0, 1, 2], [0, 1, 0, 0], [1, 5, 5, 3], n_items=3))
    assert seen.events_per_user.tolist() == [2, 1, 1]
    assert seen.events_per_item.tolist() == [3, 1, 0]
    assert [column.tolist() for column in seen.rating_counts] == [[1, 3, 5], [1, 1, 2]]
    assert seen.concentration(0.3) == 0.75
    assert seen.cold[0] == ("no event", 0, 1)
    assert seen.cold[1] == ("fewer than 5 events", 3, 3)


def test_genres_are_counted_paired_and_rated():
    data = make_dataset([0, 0, 1, 1], [0, 1, 1, 2], [2, 4, 4, 1], n_items=3)
    seen = _with_genres(data, [["War"], ["War", "Drama"], []])
    assert seen.genres[0] == ["War", "Drama"]
    assert seen.genre_items.tolist() == [2, 1]
    assert seen.genre_events.tolist() == [3, 2]
    assert seen.genre_pairs.tolist() == [[1.0, 0.5], [1.0, 1.0]]
    assert seen.genre_rating.tolist() == [pytest.approx(10 / 3), 4.0]


def test_time_is_seen_by_month_and_by_weekday_and_hour():
    times = [0, 3600, 40 * 86_400, 100 * 86_400]
    seen = Exploration(make_dataset([0, 0, 1, 1], [0, 1, 0, 1], timestamp=times))
    months, counts = seen.months
    assert [str(month) for month in months] == ["1970-01", "1970-02", "1970-03", "1970-04"]
    assert counts.tolist() == [2, 1, 0, 1]
    assert seen.weekday_hour[3, :2].tolist() == [1, 1]  # 1970-01-01 was a Thursday
    assert seen.weekday_hour.sum() == 4


def test_density_is_the_share_of_pairs_that_met():
    data = random_dataset(n_users=100, n_items=80, events_per_user=16)
    density = Exploration(data).density
    assert density.shape == (40, 40)
    assert density.mean() == pytest.approx(16 / 80)


def test_a_rank_curve_leaves_out_what_has_no_logarithm():
    rank, counts = rank_curve(np.array([0, 5, 9, 0, 1]))
    assert rank.tolist() == [1, 2, 3]
    assert counts.tolist() == [9, 5, 1]


def test_held_out_events_of_items_unseen_before_are_cold():
    item = [0, 1, 2, 3, 4, 0, 1, 2, 3, 3]
    times = list(range(10))
    seen = Exploration(make_dataset([0] * 5 + [1] * 5, item, timestamp=times))
    assert seen.cold_held_out == 1  # item 4


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("explored")
    write_synthetic(root / "raw", users=60, items=80, events=1_500, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        prepare_inline(patch)(detect(root / "raw"), root / "data")
    return root / "data"


def test_the_report_is_one_page_that_needs_nothing_beside_it(prepared, tmp_path):
    size = write_report(prepared, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert size == len(page.encode())
    assert page.count("<svg") == len(PLOTS)
    for plot in PLOTS:
        assert f"<h2>{plot.title}</h2>" in page
    outside = re.findall(r"""(?:src|href)=["'](?!#|data:)[^"']*""", page)
    assert outside == []
    assert "repeat a (user, item) pair" in page
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_without_ratings_times_and_genres_their_plots_are_left_out():
    page = render(Exploration(make_dataset([0, 0, 1], [0, 1, 1])).__class__(_implicit()))
    assert page.count("<svg") == 4
    assert "Weekday" not in page


def _implicit():
    data = make_dataset([0, 0, 1], [0, 1, 1])
    statistics = data.statistics | {"sparsity": 0.5, "rejected": {"no user": 2}}
    return type(data)(**{**data.__dict__, "statistics": statistics})


def test_what_was_rejected_is_among_the_findings():
    assert ("rejected: no user", 2, "events") in Exploration(_implicit()).findings


def test_a_report_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write .*Not a directory"):
        write_page("<html>", tmp_path / "file" / "report.html")
    with pytest.raises(UserError, match="not a prepared data set"):
        write_report(tmp_path, tmp_path / "report.html")


def test_features_of_the_prepared_directory_are_readable_by_anyone(prepared):
    assert pq.read_table(prepared / "item_features.parquet").num_rows == 80
