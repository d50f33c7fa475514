"""Closed-form fits against their definitions, and the blend of all parts against their sum."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.unit.training.test_baselines import events, two_tastes
from training.blend import LEARNED, LINEAR, POPULARITY, RECENT, blend_towers, choose_blend
from training.evaluate import Known
from training.linear import RIDGE, fit_linear
from training.model.blend import part_vectors
from training.model.two_tower import DIMENSION, TowerConfig, UserTower


def learned_tower(n_items, seed=0):
    torch.manual_seed(seed)
    tower = UserTower(TowerConfig(history_length=20, hidden=16)).eval()
    tower.item_vectors = torch.randn(n_items, DIMENSION) / 10
    return tower


def scores_of(tower, known, users):
    return tower.encode_ragged(*known.histories(users), users) @ tower.item_vectors.numpy().T


def known_of(fitted):
    return Known(fitted, np.ones(fitted.n_items, bool))


def as_ranked(scores):
    """Scores up to what changes no order."""
    return scores - scores.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("times", [None, list(range(8))])
def test_the_linear_tower_of_full_rank_is_the_weighted_ridge_regression(times):
    fitted = events([0, 0, 1, 1, 1, 2, 3, 3], [0, 1, 1, 2, 3, 2, 0, 3], times)
    met = fitted.matrix().toarray().astype(float)
    user_weight, item_scale = met.sum(1) ** -0.7, met.sum(0) ** -0.25
    moments = met.T @ (user_weight[:, None] * met)

    def regression(moments, ridge):
        moments = moments * item_scale[:, None] * item_scale
        ridge = ridge * np.trace(moments) / met.sum()
        precision = np.linalg.inv(moments + np.diag(0.3 * np.diag(moments)) + ridge * np.eye(4))
        weights = np.eye(4) - precision / np.diag(precision)
        return item_scale[:, None] * weights / item_scale

    weights = regression(moments, RIDGE)
    if times is not None:  # pairs one place apart count exp(-1/20), two places exp(-2/20)
        near = np.diag(np.diag(moments))
        pairs = [(0, 0, 1, 1), (1, 1, 2, 1), (1, 2, 3, 1), (1, 1, 3, 2), (3, 0, 3, 1)]
        for user, one, other, apart in pairs:
            near[[one, other], [other, one]] += user_weight[user] * np.exp(-apart / 20)
        weights += 0.5 * regression(near, 200)
    expected = met @ weights
    # The regression of rank 3 is its projection on the leading directions of all scores.
    weighted = expected * np.sqrt(user_weight)[:, None]
    _, _, directions = np.linalg.svd(weighted, full_matrices=False)
    expected = expected @ directions[:3].T @ directions[:3]
    scores = scores_of(fit_linear(fitted, 3), known_of(fitted), np.arange(4))
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-7)


def test_the_linear_tower_knows_the_two_tastes_and_leaves_unseen_items_at_zero():
    fitted = two_tastes()
    users = np.arange(fitted.n_users)
    scores = scores_of(fit_linear(fitted, 10), known_of(fitted), users)
    scores[fitted.user, fitted.item] = -np.inf
    assert np.array_equal(scores.argmax(axis=1) % 2, users % 2)
    wider = events(fitted.user, np.where(fitted.item == 0, 25, fitted.item), fitted.timestamp)
    tower = fit_linear(wider, 10)
    assert not tower.item_vectors[20:25].any()
    assert not tower.input_vectors[20:25].any()


def test_a_blend_scores_as_the_weighted_sum_of_its_parts_does():
    fitted = two_tastes()
    known, users = known_of(fitted), np.arange(fitted.n_users)
    learned, linear = learned_tower(fitted.n_items), fit_linear(fitted, 10)
    weights = {LEARNED: 1.0, LINEAR: 4.0, POPULARITY: 0.5, RECENT: 0.0}
    blend = blend_towers(learned, fitted, weights, seed=0, linear=linear)
    counts = np.bincount(fitted.item, minlength=fitted.n_items)
    expected = (
        scores_of(learned, known, users)
        + 4.0 * scores_of(linear, known, users)
        + 0.5 * np.log1p(counts)
    )
    # 20 items have 20 directions, of 127: nothing is lost.
    np.testing.assert_allclose(
        as_ranked(scores_of(blend, known, users)), as_ranked(expected), rtol=1e-3, atol=1e-4
    )
    assert blend.item_vectors.shape == (fitted.n_items, DIMENSION)
    assert blend.item_vectors.dtype == torch.float32


def test_of_more_directions_than_coordinates_the_blend_keeps_those_that_score_most():
    fitted = two_tastes(n_users=300, n_items=240)
    known, users = known_of(fitted), np.arange(fitted.n_users)
    learned, linear = learned_tower(fitted.n_items), fit_linear(fitted, 100)
    weights = {LEARNED: 1.0, LINEAR: 4.0, POPULARITY: 0.0, RECENT: 0.0}
    blend = blend_towers(learned, fitted, weights, seed=0, linear=linear)
    vectors = part_vectors(blend.parts, *known.histories(users), users)
    items = np.hstack([learned.item_vectors[:, :-1], 4.0 * linear.item_vectors])
    wanted = vectors @ (items - items.mean(axis=0)).T
    left = np.linalg.svd(wanted, compute_uv=False)
    kept = vectors @ blend.mix.numpy() @ blend.item_vectors[:, :-1].numpy().T
    # The error is that of the best approximation there is: Eckart and Young.
    assert np.linalg.norm(kept - wanted) == pytest.approx(
        np.sqrt((left[DIMENSION - 1 :] ** 2).sum()), rel=1e-2, abs=1e-2
    )


def last_apart():
    """Train and validation: of each user, one event to find."""
    whole = two_tastes(n_users=80)
    last = np.append(np.diff(whole.user) > 0, True)
    return (
        events(whole.user[some], whole.item[some], whole.timestamp[some]) for some in (~last, last)
    )


def test_weights_are_those_that_help_the_choosing_users():
    train, validation = last_apart()
    blend, tower = choose_blend(learned_tower(20), known_of(train), validation, seed=0)
    assert blend.weights[LEARNED] == 1
    assert blend.weights[LINEAR] > 0
    assert blend.ndcg["blend"] > blend.ndcg[LEARNED]
    assert blend.ndcg["blend"] >= max(blend.ndcg[name] for name in (LEARNED, LINEAR)) - 0.02
    assert blend.kept and len(tower.parts) == 2
    assert "linear" in blend.describe()


def test_a_blend_whose_gain_may_be_chance_leaves_the_learned_tower_alone():
    train, validation = last_apart()
    at_random = replace(validation, item=np.random.default_rng(0).permutation(validation.item))
    learned = learned_tower(20)
    blend, tower = choose_blend(learned, known_of(train), at_random, seed=0)
    assert blend.gain.low <= 0
    assert tower is learned
    assert "not kept" in blend.describe()


def test_a_learned_tower_that_only_makes_noise_is_outweighed_however_loud_it_is():
    train, validation = last_apart()
    noise = learned_tower(20)
    noise.item_vectors *= 30
    blend, _ = choose_blend(noise, known_of(train), validation, seed=0)
    assert blend.weights[LINEAR] > 32
    assert blend.ndcg["blend"] > blend.ndcg[LEARNED] + 0.2


def test_events_without_time_have_no_recent_popularity():
    whole = two_tastes()
    timeless = events(whole.user, whole.item)
    blend, _ = choose_blend(learned_tower(20), known_of(timeless), timeless, seed=0)
    assert set(blend.weights) == {LEARNED, LINEAR, POPULARITY}
