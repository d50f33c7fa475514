import numpy as np
import pytest

from training.model.ranking import (
    ITEM_INPUTS,
    RANKER_FEATURES,
    SUCCESSORS,
    USER_INPUTS,
    CatalogueInputs,
    ranker_features,
)

ITEMS, GENRES, DIMENSION = 40, 3, 16


def catalogue(seed=0):
    rng = np.random.default_rng(seed)
    genres = rng.integers(0, 2, (ITEMS, GENRES)).astype(np.float32)
    genres /= np.maximum(genres.sum(axis=1, keepdims=True), 1)
    features = rng.normal(size=(ITEMS, len(ITEM_INPUTS))).astype(np.float32)
    features[::4, ITEM_INPUTS.index("year")] = np.nan
    vectors = rng.normal(size=(ITEMS, DIMENSION)).astype(np.float32)
    successors = rng.permuted(np.tile(np.arange(ITEMS, dtype=np.int32), (ITEMS, 1)), axis=1)
    weights = -np.sort(-rng.random((ITEMS, SUCCESSORS), np.float32), axis=1)
    # Half of the slots are padding, as for an item that few others follow.
    successors, weights = successors[:, :SUCCESSORS], weights[:, : len(successors[0])]
    successors[:, ITEMS // 2 :], weights[:, ITEMS // 2 :] = ITEMS, 0
    return CatalogueInputs.build(vectors, features, genres, successors, weights), vectors


def rows_of(histories, candidates, inputs=None, users=None):
    histories = [np.array(history, np.int32) for history in histories]
    candidates = np.array(candidates, np.int32)
    scores = -np.sort(-np.random.default_rng(1).normal(size=candidates.shape)).astype(np.float32)
    if users is None:
        users = np.full((len(histories), len(USER_INPUTS)), np.nan, np.float32)
    offsets = np.cumsum([0, *map(len, histories)]).astype(np.int64)
    flat = np.concatenate(histories) if histories else np.zeros(0, np.int32)
    rows = ranker_features(inputs or catalogue()[0], candidates, scores, flat, offsets, users)
    return rows.reshape(*candidates.shape, len(RANKER_FEATURES)), scores


def column(rows, name):
    return rows[..., RANKER_FEATURES.index(name)]


def cosine(a, b):
    a, b = a[:-1], b[:-1]  # without the bias
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_features_are_what_their_names_say():
    inputs, vectors = catalogue()
    history, candidates = list(range(1, 31)), [35, 2, 0]
    user = np.arange(len(USER_INPUTS), dtype=np.float32)[None]
    rows, scores = rows_of([history], [candidates], inputs, user)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(column(rows, "tower_score")[0], scores[0])
    np.testing.assert_allclose(column(rows, "tower_score_gap")[0], scores[0] - scores[0, 0])
    assert column(rows, "tower_rank")[0].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(
        rows[0][:, [RANKER_FEATURES.index(f"item_{name}") for name in ITEM_INPUTS]],
        inputs.item_features[candidates],
    )
    assert column(rows, f"user_{USER_INPUTS[1]}")[0].tolist() == [1, 1, 1]
    for n in (1, 5, 20):
        cosines = np.array(
            [[cosine(vectors[c], vectors[h]) for h in history[-n:]] for c in candidates]
        )
        np.testing.assert_allclose(
            column(rows, f"similarity_max_{n}")[0], cosines.max(axis=1), atol=1e-5
        )
        np.testing.assert_allclose(
            column(rows, f"similarity_mean_{n}")[0], cosines.mean(axis=1), atol=1e-5
        )
    taste = inputs.genre_matrix[history].mean(axis=0)
    np.testing.assert_allclose(
        column(rows, "genre_affinity")[0], inputs.genre_matrix[candidates] @ taste, atol=1e-6
    )
    popularity = inputs.item_features[:, ITEM_INPUTS.index("log_popularity")]
    np.testing.assert_allclose(
        column(rows, "popularity_gap")[0],
        popularity[candidates] - popularity[history].mean(),
        atol=1e-6,
    )
    year = inputs.item_features[:, ITEM_INPUTS.index("year")]
    np.testing.assert_allclose(
        column(rows, "year_gap")[0], year[candidates] - np.nanmean(year[history]), atol=1e-6
    )
    assert column(rows, "history_length")[0].tolist() == [30, 30, 30]


def test_a_batch_gives_what_each_user_alone_gives():
    histories = [[1, 2, 3], [], [7], list(range(30)), []]
    candidates = np.random.default_rng(2).permuted(np.tile(np.arange(ITEMS), (5, 1)), axis=1)[:, :6]
    together, _ = rows_of(histories, candidates)
    for user, history in enumerate(histories):
        alone, _ = rows_of([history], candidates[[user]])
        names = [name for name in RANKER_FEATURES if not name.startswith("tower_score")]
        for name in names:
            np.testing.assert_allclose(
                column(together, name)[user], column(alone, name)[0], atol=1e-6, err_msg=name
            )


def test_a_new_user_has_every_feature_that_needs_no_history_and_nan_in_the_others():
    rows, _ = rows_of([[]], [[1, 2]])
    for name in ("tower_score", "tower_rank", "item_log_popularity", "history_length"):
        assert not np.isnan(column(rows, name)).any()
    for name in ("similarity_max_1", "similarity_mean_20", "genre_affinity", "popularity_gap"):
        assert np.isnan(column(rows, name)).all()
    assert np.isnan(column(rows, f"user_{USER_INPUTS[0]}")).all()


def test_a_history_of_items_without_years_has_no_year_gap():
    rows, _ = rows_of([[0, 4]], [[1, 2]])
    assert np.isnan(column(rows, "year_gap")).all()


def test_an_empty_slot_is_a_row_of_nan():
    rows, _ = rows_of([[1], [2]], [[3, 5, -1], [4, -1, -1]])
    assert np.isnan(rows[0, 2]).all() and np.isnan(rows[1, 1:]).all()
    assert not np.isnan(column(rows, "tower_score")[[0, 0, 1], [0, 1, 0]]).any()


def test_a_candidate_follows_the_last_events_as_strongly_as_their_successors_say():
    inputs, _ = catalogue()
    history, candidates = [3, 9, 9, 1, 7, 2, 30], [5, 6, 8, -1]
    rows, _ = rows_of([history, []], [candidates, candidates], inputs)

    def strength(item, candidate):
        place = np.flatnonzero(inputs.successors[item] == candidate)
        return inputs.successor_weights[item][place].sum()

    for slot, candidate in enumerate(candidates[:3]):
        recent = sum(0.7**age * strength(i, candidate) for age, i in enumerate([30, 2, 7, 1, 9]))
        assert column(rows, "follows_last")[0, slot] == pytest.approx(strength(30, candidate))
        assert column(rows, "follows_recent")[0, slot] == pytest.approx(recent, rel=1e-5)
    assert np.isnan(column(rows, "follows_last")[0, 3])
    assert np.isnan(column(rows, "follows_recent")[1]).all()


def test_no_users_give_no_rows():
    rows, _ = rows_of([], np.zeros((0, 5)))
    assert rows.shape == (0, 5, len(RANKER_FEATURES))


def test_item_features_of_another_width_are_refused_with_what_is_expected():
    vectors, genres = np.ones((2, 4), np.float32), np.ones((2, 1), np.float32)
    nothing = np.full((2, 1), 2, np.int32), np.zeros((2, 1), np.float32)
    with pytest.raises(ValueError, match="log_popularity"):
        CatalogueInputs.build(vectors, np.ones((2, 3), np.float32), genres, *nothing)


def test_directions_have_length_one_and_leave_out_the_bias():
    inputs, vectors = catalogue()
    assert inputs.unit_vectors.shape == (ITEMS, DIMENSION - 1)
    np.testing.assert_allclose(np.linalg.norm(inputs.unit_vectors, axis=1), 1, atol=1e-6)
    lengths = np.linalg.norm(vectors[:, :-1], axis=1, keepdims=True)
    np.testing.assert_allclose(inputs.unit_vectors * lengths, vectors[:, :-1], atol=1e-5)
