import numpy as np
import pytest

from training.data.features import (
    ItemSums,
    UserSums,
    genre_matrix,
    interaction_features,
    item_features,
    rating_z_score,
    time_features,
    user_features,
)
from training.model.user_features import DAY_S, MONTH_S

USER = np.array([0, 0, 0, 1, 3])
ITEM = np.array([0, 1, 2, 2, 0])
RATING = np.array([5.0, 3.0, np.nan, 4.0, np.nan], dtype=np.float32)
TIME = np.array([0, 10 * DAY_S, int(4 * MONTH_S), 30 * DAY_S, 0])
GENRES = [["Comedy", "Action"], ["Comedy"], ["Drama", "Western"]]


def _users(**changed):
    names, matrix = genre_matrix(GENRES)
    arguments = {"n_users": 4, "genre_names": names, "genres": matrix, "now": int(4 * MONTH_S)}
    return user_features(USER, ITEM, RATING, TIME, **(arguments | changed))


def test_genre_matrix_is_multi_hot_with_sorted_names():
    names, matrix = genre_matrix([["b", "a"], None, ["c"], []])
    assert names == ["a", "b", "c"]
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_user_features_of_known_events():
    row = _users().to_pylist()[0]
    assert row["n_events"] == 3
    assert (row["rating_mean"], row["rating_std"]) == (4.0, 1.0)
    assert (row["rating_min"], row["rating_max"]) == (3.0, 5.0)
    assert row["top_genres"] == ["Comedy", "Action", "Drama"]
    assert row["velocity_per_month"] == pytest.approx(3 / 4)
    assert row["recency_days"] == 0.0


def test_a_span_of_less_than_a_month_counts_as_a_month():
    row = _users().to_pylist()[1]
    assert row["velocity_per_month"] == 1.0
    assert row["recency_days"] == pytest.approx(4 * MONTH_S / DAY_S - 30)


def test_users_without_events_or_ratings_have_null_features():
    nobody, unrated = _users().to_pylist()[2:]
    assert nobody["n_events"] == 0
    assert nobody["top_genres"] == []
    assert nobody["rating_mean"] is None
    assert nobody["recency_days"] is None
    assert unrated["rating_mean"] is None
    assert unrated["top_genres"] == ["Action", "Comedy"]


def test_user_features_without_time_have_no_velocity_and_no_recency():
    table = user_features(
        USER,
        ITEM,
        RATING,
        None,
        n_users=4,
        genre_names=[],
        genres=np.zeros((3, 0), dtype=bool),
        now=None,
    )
    assert table["velocity_per_month"].null_count == table["recency_days"].null_count == 4
    assert table["top_genres"].to_pylist() == [[]] * 4


def test_item_features_of_known_events():
    rows = item_features(ITEM, RATING, TIME, n_items=4).to_pylist()
    assert [row["n_events"] for row in rows] == [2, 1, 2, 0]
    assert rows[2]["rating_mean"] == 4.0
    assert rows[3]["rating_mean"] is None
    assert rows[2]["log_popularity"] == pytest.approx(np.log(3))
    assert rows[3]["log_popularity"] == 0.0


def test_rating_trend_is_the_recent_against_the_old():
    item = np.array([0, 0, 0, 0, 1, 1])
    rating = np.array([2.0, 3.0, 4.0, 5.0, 3.0, 4.0])
    days = np.array([1, 1, 6, 6, 1, 2])
    table = item_features(item, rating, days * DAY_S, n_items=2)
    assert table["rating_trend"].to_pylist() == [pytest.approx(2.0), pytest.approx(1.0)]


def test_an_item_rated_at_one_moment_has_no_trend():
    table = item_features(np.array([0, 0]), np.array([1.0, 5.0]), np.array([9, 9]), n_items=2)
    assert table["rating_trend"].to_pylist() == [0.0, 0.0]


def test_item_sums_of_parts_add_up_to_those_of_the_whole():
    rng = np.random.default_rng(0)
    item, rating = rng.integers(0, 9, 200), rng.integers(1, 6, 200).astype(float)
    time = rng.integers(0, 100, 200)
    arguments = {"n_items": 9}
    whole = ItemSums.of(item, rating, time, **arguments)
    parts = [
        ItemSums.of(item[part], rating[part], time[part], **arguments)
        for part in (slice(0, 77), slice(77, 200))
    ]
    for name in ItemSums.__dataclass_fields__:
        assert np.allclose(sum(getattr(part, name) for part in parts), getattr(whole, name))


def test_features_of_earlier_events_do_not_change_when_later_ones_are_added():
    before = TIME <= 10 * DAY_S
    early = item_features(ITEM[before], RATING[before], TIME[before], n_items=3)
    all_of_them = item_features(ITEM, RATING, TIME, n_items=3)
    assert early["n_events"].to_pylist() == [2, 1, 0]
    assert all_of_them["n_events"].to_pylist() == [2, 1, 2]


def test_user_sums_of_parts_add_up_to_those_of_the_whole():
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 5, 200), rng.integers(0, 3, 200)
    rating, time = rng.integers(1, 6, 200).astype(float), rng.integers(0, 10**9, 200)
    rating[::7] = np.nan
    arguments = {"n_users": 6, "genres": genre_matrix(GENRES)[1]}

    def sums(part):
        return UserSums.of(user[part], item[part], rating[part], time[part], **arguments)

    whole, both = sums(slice(None)), sums(slice(0, 77)) + sums(slice(77, None))
    for name in UserSums.__dataclass_fields__:
        assert np.array_equal(getattr(both, name), getattr(whole, name)), name


def test_a_held_out_rating_is_measured_by_what_is_known_of_its_user():
    user = np.array([0, 1, 2])
    mean, std = np.array([3.0, 4.0, np.nan]), np.array([2.0, 0.0, np.nan])
    columns = interaction_features(user, np.array([5.0, 1.0, 3.0]), None, mean, std)
    assert columns["rating_z"][:2].tolist() == [1.0, 0.0]
    assert np.isnan(columns["rating_z"][2])


def test_rating_z_score_is_per_user():
    user = np.array([0, 0, 1, 1, 2])
    rating = np.array([1.0, 5.0, 3.0, 3.0, np.nan], dtype=np.float32)
    z = rating_z_score(user, rating, n_users=3)
    assert z[:4].tolist() == [-1.0, 1.0, 0.0, 0.0]
    assert np.isnan(z[4])


def test_time_features_are_those_of_the_calendar_in_utc():
    # 2024-02-29 was a Thursday.
    moment = np.array([0, np.datetime64("2024-02-29T23:59:59", "s").astype(np.int64)])
    parts = time_features(moment)
    assert parts["hour"].tolist() == [0, 23]
    assert parts["day_of_week"].tolist() == [3, 3]
    assert parts["month"].tolist() == [1, 2]
