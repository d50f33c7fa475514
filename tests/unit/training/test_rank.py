import json

import lightgbm
import numpy as np
import torch

from tests.datasets import make_dataset, random_dataset
from training.data.splits import TRAIN, VALIDATION, split
from training.metrics import Interval
from training.model.ranking import RANKER_FEATURES
from training.model.two_tower import DIMENSION, TowerConfig, UserTower
from training.rank import Quality, Ranker, divide_validation, fit_ranker
from training.ranker_fit import tower_order
from training.recipe import Recipe

RECIPE = Recipe(ranker_trees=20, ranker_users=20, candidates=100)


def untrained_tower(n_items):
    torch.manual_seed(0)
    tower = UserTower(TowerConfig()).eval()
    tower.item_vectors = torch.randn(n_items, DIMENSION)
    return tower


def popular_taste(n_users=300, n_items=80, events_per_user=10):
    """Nobody differs: a few items are watched by nearly everybody, which a ranker can see."""
    rng = np.random.default_rng(0)
    chance = 1 / (1 + np.arange(n_items)) ** 1.2
    chance /= chance.sum()
    item = [rng.choice(n_items, events_per_user, replace=False, p=chance) for _ in range(n_users)]
    user = np.repeat(np.arange(n_users), events_per_user)
    time = rng.integers(0, 10**7, len(user))
    return make_dataset(user, np.concatenate(item), timestamp=time, n_items=n_items)


def ranker_of(data, recipe=RECIPE):
    cut = split(data, "leave-one-out", k_core=0)
    users = divide_validation(cut, data.user, recipe, 0).ranker
    return fit_ranker(data, cut, users, untrained_tower(data.n_items), recipe, 0)


def keeps_the_order(model):
    rows = np.random.default_rng(0).normal(size=(200, len(RANKER_FEATURES)))
    rows[:, RANKER_FEATURES.index("tower_rank")] = np.arange(200)
    return bool(np.all(np.diff(model.predict(rows)) < 0))


def test_a_ranker_that_helps_is_kept_with_its_gain():
    ranker = ranker_of(popular_taste())
    assert ranker.kind == "lambdamart" and ranker.quality is not None
    gain = ranker.quality.gain
    assert 0 < gain.low < gain.value < gain.high
    assert ranker.model.booster.num_trees() == 20
    assert not keeps_the_order(ranker.model)


def test_a_ranker_that_does_not_help_gives_way_to_the_towers_order():
    ranker = ranker_of(random_dataset(n_users=200, n_items=60))
    assert (
        ranker.kind == "tower-order" and ranker.quality is not None and ranker.quality.gain.low <= 0
    )
    assert keeps_the_order(ranker.model)


def test_with_too_few_users_the_towers_order_is_kept_and_said_so():
    ranker = ranker_of(random_dataset(n_users=10))
    assert ranker.kind == "tower-order" and ranker.quality is None
    assert "too few" in ranker.describe()
    assert keeps_the_order(ranker.model)


def test_the_order_is_kept_as_far_as_candidates_go():
    assert keeps_the_order(tower_order())


def test_a_saved_ranker_names_its_features_and_predicts_without_a_history(tmp_path):
    ranker = Ranker(tower_order(), "tower-order", 7, Quality(Interval(0.0, -0.1, 0.1), 0.5, 0.1))
    ranker.save(tmp_path)
    record = json.loads((tmp_path / "ranker.json").read_text())
    assert tuple(record["features"]) == RANKER_FEATURES
    assert record["kind"] == "tower-order" and record["ndcg@10_gain"]["low"] == -0.1
    booster = lightgbm.Booster(model_file=tmp_path / "ranker.txt")
    assert booster.feature_name() == list(RANKER_FEATURES)
    assert np.isfinite(booster.predict(np.full((2, len(RANKER_FEATURES)), np.nan))).all()


def test_the_ranker_never_reads_an_event_of_test():
    data = popular_taste(n_users=120)
    cut = split(data, "leave-one-out", k_core=0)
    before = ranker_of(data).model.booster.model_to_string()
    known = np.isin(cut.fold, (TRAIN, VALIDATION))
    data.item[~known] = data.item[~known][::-1]
    data.timestamp[~known] += 10**6
    users = divide_validation(cut, data.user, RECIPE, 0).ranker
    after = fit_ranker(data, cut, users, untrained_tower(data.n_items), RECIPE, 0).model.booster
    assert after.model_to_string() == before


def test_some_of_a_large_validation_fold_choose_and_all_train_the_ranker():
    data = random_dataset(n_users=1200, n_items=15, events_per_user=4)
    cut = split(data, "leave-one-out", k_core=0)
    users = divide_validation(cut, data.user, RECIPE, 0)
    assert len(users.choosing) == 480 and len(users.ranker) == 1200
    capped = divide_validation(cut, data.user, Recipe(ranker_max_users=100), 0)
    assert len(capped.ranker) == 100 and capped.choosing.tolist() == users.choosing.tolist()


def test_a_small_validation_fold_serves_both_uses_whole():
    data = random_dataset(n_users=30)
    users = divide_validation(split(data, "leave-one-out", k_core=0), data.user, RECIPE, 0)
    assert len(users.choosing) == len(users.ranker) == 30
