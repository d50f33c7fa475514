from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import training.baseline_tuning
import training.baselines
from tests.datasets import make_dataset
from training.baselines import BASELINES, Events
from training.data.splits import TEST, split
from training.errors import UserError
from training.evaluate import Known, evaluate
from training.sasrec import SasrecSettings, fit_sasrec, rectools_directory

ML_1M = Path(__file__).parents[3] / ".." / "shared" / "data" / "ml-1m" / "interactions.parquet"
DAY_S = 86_400


def events(user, item, timestamp=None):
    user, item = np.asarray(user, np.int32), np.asarray(item, np.int32)
    time = None if timestamp is None else np.asarray(timestamp, np.int64)
    return Events(user, item, time, n_users=int(user.max()) + 1, n_items=int(item.max()) + 1)


def two_tastes(n_users=60, n_items=20, seed=0):
    """Users of two kinds, each with eight of the ten items of its kind (even or odd)."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n_users) % 2
    picks = rng.random((n_users, n_items // 2)).argsort(axis=1)[:, :8]
    item = (2 * picks + kind[:, None]).ravel()
    return events(np.repeat(np.arange(n_users), 8), item, np.arange(len(item)))


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_a_baseline_scores_every_item_for_the_users_asked_for(name):
    fitted = two_tastes()
    scores = BASELINES[name](fitted, 0)(np.array([5, 0, 5]))
    assert scores.shape == (3, fitted.n_items)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert np.array_equal(scores[0], scores[2])


@pytest.mark.parametrize("name", ["ease", "ials", "bpr"])
def test_a_personal_baseline_prefers_the_items_of_the_users_own_kind(name):
    fitted = two_tastes()
    users = np.arange(fitted.n_users)
    scores = BASELINES[name](fitted, 0)(users)
    scores[fitted.user, fitted.item] = -np.inf
    assert np.array_equal(scores.argmax(axis=1) % 2, users % 2)


def test_popularity_counts_events():
    scores = BASELINES["popularity"](events([0, 1, 1, 2], [0, 0, 2, 2]), 0)(np.array([0, 1]))
    assert scores.tolist() == [[2, 0, 2]] * 2


def test_recent_popularity_prefers_what_is_popular_now():
    time = [0, 0, 0, 1000 * DAY_S, 1001 * DAY_S]
    fitted = events([0, 1, 2, 3, 4], [0, 0, 0, 1, 1], time)
    assert BASELINES["popularity"](fitted, 0)(np.array([0])).argmax() == 0
    assert BASELINES["recent-popularity"](fitted, 0)(np.array([0])).argmax() == 1


def test_recent_popularity_needs_time():
    with pytest.raises(UserError, match="time"):
        BASELINES["recent-popularity"](events([0, 1], [0, 1]), 0)


def test_ease_weights_are_the_closed_form_with_an_empty_diagonal():
    fitted = events([0, 0, 1, 1, 2], [0, 1, 1, 2, 2])
    met = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]], float)
    inverse = np.linalg.inv(met.T @ met + 500 * np.eye(3))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    scores = BASELINES["ease"](fitted, 0)(np.arange(3))
    assert scores == pytest.approx(met @ weights, rel=1e-5)


def test_ease_refuses_a_catalogue_that_does_not_fit_in_memory(monkeypatch):
    monkeypatch.setattr(training.baselines, "EASE_MAX_ITEMS", 2)
    with pytest.raises(UserError, match="--models"):
        BASELINES["ease"](events([0, 1], [0, 2]), 0)


def test_ials_is_the_same_for_the_same_seed():
    fitted, users = two_tastes(), np.arange(3)
    assert BASELINES["ials"](fitted, 4)(users) == pytest.approx(
        BASELINES["ials"](fitted, 4)(users), abs=1e-4
    )


def test_ials_is_tuned_on_validation_alone(monkeypatch):
    monkeypatch.setattr(training.baseline_tuning, "FACTORS", (4,))
    dataset = make_dataset(two_tastes().user, two_tastes().item, timestamp=np.arange(480))
    cut = split(dataset, "user-temporal")
    settings, ndcg = training.baseline_tuning.tune_ials(dataset, cut, 0)
    assert settings.factors == 4 and 0 < ndcg <= 1
    test = cut.fold == TEST
    dataset.item[test] = dataset.item[test][::-1]
    assert training.baseline_tuning.tune_ials(dataset, cut, 0) == (settings, pytest.approx(ndcg))


@pytest.mark.skipif(rectools_directory() is None, reason="RecTools is not there: make rectools")
def test_rectools_sasrec_learns_whose_turn_it_is():
    walk = (np.arange(60)[:, None] + np.arange(12)) % 40
    fitted = events(np.repeat(np.arange(60), 12), walk.ravel())
    model = fit_sasrec(fitted, 0, SasrecSettings(n_factors=32, epochs=10, lr=1e-2))
    following = (walk[:, -1] + 1) % 40
    assert (model(np.arange(60)).argmax(axis=1) == following).mean() > 0.5


@pytest.mark.data
def test_popularity_and_ease_reproduce_the_published_reference_on_movielens_1m():
    if not ML_1M.exists():
        pytest.skip("MovieLens 1M is not beside the repository (../shared/data/ml-1m)")
    table = pq.read_table(ML_1M)
    user, item = (
        np.unique(table[column].to_numpy(), return_inverse=True)[1]
        for column in ("userId", "movieId")
    )
    dataset = make_dataset(user, item, timestamp=table["timestamp"].to_numpy())
    cut = split(dataset, "leave-one-out")
    known = Known.of(dataset, cut)
    models = {name: BASELINES[name](known.events, 0) for name in ("popularity", "ease")}
    metrics = evaluate(dataset, cut, models, ks=[10]).metrics
    assert metrics["popularity"]["ndcg@10"].value == pytest.approx(0.0178, abs=0.002)
    assert metrics["ease"]["ndcg@10"].value == pytest.approx(0.0544, abs=0.002)
    assert metrics["ease"]["hit@10"].value == pytest.approx(0.1099, abs=0.002)
