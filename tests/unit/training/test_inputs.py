from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from tests.datasets import make_dataset, random_dataset
from training.inputs import (
    genre_shares,
    item_tower_features,
    ranker_item_inputs,
    ranker_user_inputs,
    successors,
    user_tower_features,
)
from training.model.ranking import ITEM_INPUTS, SUCCESSORS, USER_INPUTS

DAY_S = 86_400


def items(genres, years):
    return pa.table(
        {
            "genres": pa.array(genres, pa.list_(pa.string())),
            "year": pa.array(years, pa.int32()),
        }
    )


def test_item_tower_features_of_known_items():
    table = items([["b", "a"], [], ["a"]], [1994, None, 2000])
    features = item_tower_features(table)
    root = 2**-0.5
    # genres a, b; knots 1990 and 2000; the constant
    np.testing.assert_allclose(
        features,
        [[root, root, 0.6, 0.4, 1], [0, 0, 0, 0, 1], [1, 0, 0, 1, 1]],
        atol=1e-6,
    )


def test_items_without_any_metadata_still_have_a_feature():
    np.testing.assert_array_equal(item_tower_features(items([[], []], [None, None])), [[1], [1]])


def test_genre_shares_sum_to_one_or_nothing():
    names, shares = genre_shares(items([["b", "a"], [], ["c"]], [None] * 3))
    assert names == ["a", "b", "c"]
    np.testing.assert_allclose(shares, [[0.5, 0.5, 0], [0, 0, 0], [0, 0, 1]])


def dataset():
    return make_dataset(
        user=[0, 0, 1, 1],
        item=[0, 1, 0, 2],
        rating=[4, 2, 5, 3],
        timestamp=[0, 2 * DAY_S, 5 * DAY_S, 10 * DAY_S],
        n_items=4,
    )


def test_successors_are_the_items_that_follow_most_and_soonest():
    data = make_dataset(user=[0, 0, 0, 1, 1], item=[0, 1, 2, 0, 1], n_items=4)
    ids, weights = successors(data, np.ones(5, bool))
    assert ids.shape == weights.shape == (4, SUCCESSORS)
    assert ids[0, :3].tolist() == [1, 2, 4]  # 4: there are no more
    # 0 is followed by 1 twice at distance 1, by 2 once at distance 2; n = 2, 2, 1.
    np.testing.assert_allclose(weights[0, :3], [2 / 7, 0.5 / np.sqrt(7 * 6), 0], rtol=1e-6)
    assert (ids[2:] == 4).all() and not weights[2:].any()


def test_successors_know_the_chosen_events_only():
    data = make_dataset(user=[0, 0, 0], item=[0, 1, 2], n_items=3)
    ids, _ = successors(data, np.array([True, False, True]))
    assert ids[0, 0] == 2
    assert (ids[1] == 3).all()


def test_item_inputs_of_known_events():
    inputs = ranker_item_inputs(dataset(), np.array([True, True, True, False]))
    column = {name: inputs[:, index] for index, name in enumerate(ITEM_INPUTS)}
    np.testing.assert_allclose(column["log_popularity"], np.log1p([2, 1, 0, 0]), atol=1e-6)
    np.testing.assert_allclose(column["age_days"], [5, 3, np.nan, np.nan])
    np.testing.assert_allclose(column["rating_mean"], [4.5, 2, np.nan, np.nan])
    assert np.isnan(column["year"]).all()
    assert np.all(column["recent_log_popularity"] <= column["log_popularity"])


def test_user_inputs_are_nan_for_users_without_events():
    inputs = ranker_user_inputs(dataset(), np.array([True, True, False, False]))
    assert inputs.shape == (2, len(USER_INPUTS))
    assert inputs[0, USER_INPUTS.index("rating_mean")] == 3
    assert inputs[0, USER_INPUTS.index("recency_days")] == 0
    assert np.isnan(inputs[1]).all()


def test_inputs_without_time_or_ratings_are_nan_and_not_wrong():
    data = make_dataset(user=[0, 0, 1], item=[0, 1, 1], n_items=3)
    every = np.ones(3, dtype=bool)
    items_, users = ranker_item_inputs(data, every), ranker_user_inputs(data, every)
    for name in ("recent_log_popularity", "age_days", "rating_mean"):
        assert np.isnan(items_[:, ITEM_INPUTS.index(name)]).all()
    assert np.isfinite(items_[:, ITEM_INPUTS.index("log_popularity")]).all()
    assert np.isnan(users).all()


def test_user_tower_features_are_deviations_from_the_mean_and_zero_where_unknown():
    inputs = np.array([[1.0, np.nan, 7, 3], [3, np.nan, 7, np.nan], [np.nan] * 4])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.inputs.ranker_user_inputs", lambda *events: inputs)
        features = user_tower_features(dataset(), np.ones(4, bool))
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, [[-1, 0, 0, 0], [1, 0, 0, 0], [0] * 4])


def test_one_user_unlike_all_others_stays_within_measure():
    ratings = np.where(np.arange(100) == 0, 1, 5)
    data = make_dataset(user=np.arange(100), item=np.zeros(100), rating=ratings)
    column = user_tower_features(data, np.ones(100, bool))[:, USER_INPUTS.index("rating_mean")]
    assert column[0] == -5
    assert np.allclose(column[1:], 0.1, atol=0.01)


@pytest.mark.parametrize("inputs", [ranker_item_inputs, ranker_user_inputs, user_tower_features])
def test_what_is_not_chosen_changes_nothing(inputs):
    data = random_dataset()
    chosen = data.timestamp < np.median(data.timestamp)
    changed = replace(
        data,
        item=np.where(chosen, data.item, 0).astype(np.int32),
        rating=np.where(chosen, data.rating, 1).astype(np.float32),
        timestamp=np.where(chosen, data.timestamp, 10**9),
    )
    np.testing.assert_array_equal(inputs(data, chosen), inputs(changed, chosen))
