import json

import numpy as np
import pytest
import torch

from training.calibration import calibrated, logistic_curve
from training.deep_ranking import _loss, fit_lists
from training.model.deep_ranker import DeepRanker, FactorisationMachine, quantiles
from training.model.rankers import load_ranker
from training.model.ranking import DEEP, RANKER_FEATURES
from training.ranker_fit import Groups, fit_models
from training.recipe import Recipe

KINDS = ("lambdamart", "xgboost", *DEEP)


pytestmark = pytest.mark.usefixtures("one_thread")


def planted(n_users=90, slots=20):
    """A candidate is relevant when the product of two features is large: neither says it alone."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n_users, slots, len(RANKER_FEATURES))).astype(np.float32)
    product = rows[:, :, 3] * rows[:, :, 4]
    rows[:, :, 7] *= 1e6
    rows[::5, :, 9] = np.nan
    rows[-1, -4:] = np.nan
    hits = product >= np.sort(product, axis=1)[:, -3:-2]
    hits[-1, -4:] = False
    return Groups(rows, hits, hits.sum(axis=1))


def fitted(kind, groups):
    recipe = Recipe(ranker=kind, ranker_trees=60, ranker_epochs=30, ranker_learning_rate=0.2)
    if kind in DEEP:
        return fit_lists((groups.rows, groups.hits), recipe, 0)
    (model,) = fit_models([groups], recipe, 0, workers=1, storage=None)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_an_interaction_and_scores_the_same_after_it_was_saved(kind, tmp_path):
    groups = planted()
    model = fitted(kind, groups)
    rows = groups.rows[groups.filled()]
    scores = model.predict(rows)
    hit = groups.hits[groups.filled()]
    better = (scores[hit][:, None] > scores[~hit]).mean()
    assert better > 0.8
    model.save(tmp_path)
    record = {"features": RANKER_FEATURES, "kind": kind}
    (tmp_path / "ranker.json").write_text(json.dumps(record))
    loaded = load_ranker(tmp_path)
    np.testing.assert_allclose(loaded.predict(rows), scores, rtol=1e-5)
    assert np.isfinite(loaded.predict(np.full((2, rows.shape[1]), np.nan, np.float32))).all()


def test_a_ranker_of_a_kind_to_come_is_refused(tmp_path):
    (tmp_path / "ranker.json").write_text('{"kind": "oracle"}')
    with pytest.raises(ValueError, match="no ranker of kind 'oracle'"):
        load_ranker(tmp_path)


def test_workers_losses_add_up_to_that_of_one():
    groups = planted(n_users=10)
    filled = groups.filled()
    torch.manual_seed(0)
    model = DeepRanker("dcn-v2", torch.from_numpy(quantiles(groups.rows[filled])))

    def loss(part):
        return _loss(model, groups.rows[part], groups.hits[part], filled[part]).item()

    whole = slice(None)
    assert loss(whole) == pytest.approx(loss(slice(0, None, 2)) + loss(slice(1, None, 2)), rel=1e-5)


def test_the_pairs_of_a_factorisation_machine_are_those_of_its_definition():
    torch.manual_seed(0)
    machine = FactorisationMachine(5)
    x = torch.randn(3, 5)
    factors = machine.factors
    pairs = sum(
        (factors[i] @ factors[j]) * x[:, i] * x[:, j] for i in range(5) for j in range(i + 1, 5)
    )
    rest = machine.single(x) + machine.out(machine.deep((x[:, :, None] * factors).flatten(1)))
    torch.testing.assert_close(machine(x), pairs + rest.squeeze(1))


def test_a_logistic_curve_is_found_again_and_applied_to_others_than_it_was_fitted_on():
    rng = np.random.default_rng(0)
    scores = rng.normal(3, 5, 40_000)
    chance = 1 / (1 + np.exp(-(0.7 * scores - 4)))
    relevant = rng.random(len(scores)) < chance
    slope, shift = logistic_curve(scores, relevant)
    assert slope == pytest.approx(0.7, rel=0.05) and shift == pytest.approx(-4, rel=0.05)
    part = np.arange(len(scores)) % 2
    relevant[part == 1] = False  # so that the other part's curve says hardly ever
    assert calibrated(scores, relevant, part)[part == 0].max() < 1e-3
