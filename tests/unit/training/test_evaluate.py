import json
from collections import Counter
from dataclasses import replace
from math import log2

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.datasets import random_dataset
from training.baselines import BASELINES
from training.data.splits import PROTOCOLS, TEST, split
from training.errors import UserError
from training.evaluate import (
    Known,
    RankedScorer,
    TowerScorer,
    dump,
    evaluate,
    rank_catalogue,
)
from training.model.ranking import ITEM_INPUTS, RANKER_FEATURES, USER_INPUTS, CatalogueInputs
from training.model.two_tower import DIMENSION, TowerConfig, UserTower


def evaluated(protocol="user-temporal", **options):
    data = random_dataset()
    cut = split(data, protocol, k_core=0, validation_users=20)
    known = Known.of(data, cut)
    models = {name: BASELINES[name](known.events, 0) for name in ("popularity", "ease")}
    return evaluate(data, cut, models, **options)


def known_of(data, protocol="user-temporal"):
    return Known.of(data, split(data, protocol, validation_users=20))


def test_what_a_user_met_is_never_recommended_and_neither_is_what_nobody_met():
    data = random_dataset(n_items=60, n_users=8)
    known = known_of(data)
    users = np.arange(data.n_users)
    lists = rank_catalogue(lambda users: np.ones((len(users), 60), np.float32), users, known, 60)
    assert not known.catalogue.all()
    for user, items in zip(users, lists.items, strict=True):
        met = known.events.item[known.events.user == user]
        assert set(items[items >= 0]) == set(np.flatnonzero(known.catalogue)) - set(met)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 0.5, 1.0, -np.inf]), min_size=30, max_size=30),
        min_size=40,
        max_size=40,
    ),
    st.integers(1, 35),
)
def test_the_list_is_that_of_a_stable_sort_by_falling_score(rows, k):
    known = known_of(random_dataset())
    table = np.array(rows, np.float32)
    users = np.arange(40)
    lists = rank_catalogue(lambda users: table[users], users, known, k)
    for user in users:
        masked = table[user].copy()
        masked[known.events.item[known.events.user == user]] = -np.inf
        masked[~known.catalogue] = -np.inf
        expected = [item for item in np.argsort(-masked, kind="stable") if masked[item] > -np.inf]
        filled = lists.items[user] >= 0
        assert lists.items[user][filled].tolist() == expected[:k]
        assert lists.scores[user][filled].tolist() == masked[expected[:k]].tolist()
        assert np.all(lists.scores[user][~filled] == -np.inf)


def test_chunks_of_users_do_not_change_the_lists(monkeypatch):
    whole = evaluated()
    monkeypatch.setattr("training.evaluate._SCORES_AT_ONCE", 100)
    chunked = evaluated()
    for name, lists in whole.lists.items():
        assert np.array_equal(lists.items, chunked.lists[name].items)
    assert whole.metrics == chunked.metrics


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_user_with_held_out_events_is_judged_under_every_protocol(protocol):
    result = evaluated(protocol)
    held_out = result.split.fold == TEST
    assert np.array_equal(result.users, np.unique(result.dataset.user[held_out]))
    assert {name.split("@")[1] for name in result.metrics["ease"]} == {"5", "10", "20", "50", "100"}


def test_the_document_names_its_split_and_holds_an_interval_for_every_metric():
    result = evaluated(ks=[10, 3, 10], seed=4)
    document = json.loads(json.dumps(result.to_json()))
    assert document["protocol"] == "user-temporal"
    assert document["split_hash"] == result.split.hash
    assert (document["seed"], document["users"], document["catalogue"]) == (4, 40, 30)
    assert set(document["models"]) == {"popularity", "ease"}
    interval = document["models"]["ease"]["ndcg@3"]
    assert set(interval) == {"value", "low", "high"}
    assert interval["low"] <= interval["value"] <= interval["high"]


def test_a_model_is_compared_with_another_user_by_user():
    result = evaluated(ks=[3, 10], compared=[("ease", "popularity")])
    (gain,) = result.to_json()["gains"]
    assert (gain["model"], gain["over"]) == ("ease", "popularity")
    for k in (3, 10):
        one, other = (result.metrics[name][f"ndcg@{k}"] for name in ("ease", "popularity"))
        assert gain[f"ndcg@{k}"]["value"] == pytest.approx(one.value - other.value)
        width = gain[f"ndcg@{k}"]["high"] - gain[f"ndcg@{k}"]["low"]
        assert 0 < width < one.high - one.low + other.high - other.low


def recomputed(directory, model, k):
    """NDCG, recall, hit rate and coverage from the dumped files alone, in plain Python."""
    train, holdout, lists = (
        pq.read_table(directory / f"{name}.parquet").to_pylist()
        for name in ("train", "holdout", "recommendations")
    )
    wanted, shown = {}, {}
    for row in holdout:
        wanted.setdefault(row["user_id"], set()).add(row["item_id"])
    met = {(row["user_id"], row["item_id"]) for row in train}
    for row in lists:
        if row["model"] == model and row["rank"] <= k:
            assert (row["user_id"], row["item_id"]) not in met
            shown.setdefault(row["user_id"], {})[row["rank"]] = row["item_id"]
    ndcg = recall = hit = 0.0
    for user, items in wanted.items():
        gains = [1 / log2(rank + 1) for rank, item in shown[user].items() if item in items]
        ndcg += sum(gains) / sum(1 / log2(rank + 2) for rank in range(min(k, len(items))))
        recall += len(gains) / len(items)
        hit += bool(gains)
    distinct = {item for places in shown.values() for item in places.values()}
    catalogue = {row["item_id"] for row in train}
    coverage = len(distinct) / len(catalogue)
    shown_to = Counter(item for places in shown.values() for item in places.values())
    times = sorted(shown_to[item] for item in catalogue)
    below = sum((2 * place - len(times) - 1) * count for place, count in enumerate(times, start=1))
    gini = below / (len(times) * sum(times))
    n = len(wanted)
    return {
        "ndcg": ndcg / n, "recall": recall / n, "hit": hit / n, "coverage": coverage, "gini": gini
    }  # fmt: skip


def test_every_number_can_be_recomputed_from_the_dump(tmp_path):
    result = evaluated(ks=[5, 10])
    dump(result, tmp_path / "dump")
    for model in ("popularity", "ease"):
        for k in (5, 10):
            for name, value in recomputed(tmp_path / "dump", model, k).items():
                assert result.metrics[model][f"{name}@{k}"].value == pytest.approx(value)


def test_the_dump_is_in_the_inputs_own_ids_ordered_by_rank(tmp_path):
    result = evaluated(ks=[5])
    users = pa.table({"user_id": [f"user-{index}" for index in range(40)]})
    result = replace(result, dataset=replace(result.dataset, users=users))
    dump(result, tmp_path / "dump")
    lists = pq.read_table(tmp_path / "dump" / "recommendations.parquet")
    assert lists.column_names == ["model", "user_id", "rank", "item_id", "score"]
    first = lists.slice(0, 5)
    assert first["user_id"].to_pylist() == ["user-0"] * 5
    assert first["rank"].to_pylist() == [1, 2, 3, 4, 5]
    assert first["score"].to_pylist() == sorted(first["score"].to_pylist(), reverse=True)
    assert set(lists["item_id"].to_pylist()) <= set(result.dataset.item_ids.tolist())


def test_a_dump_replaces_a_dump_but_nothing_else(tmp_path):
    result = evaluated(ks=[5])
    dump(result, tmp_path / "dump")
    dump(result, tmp_path / "dump")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(UserError, match="mine"):
        dump(result, tmp_path / "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dump", "mine"]
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"


@pytest.fixture
def tower_dir(tmp_path):
    torch.manual_seed(0)
    tower = UserTower(TowerConfig()).eval()
    tower.item_vectors = torch.randn(30, DIMENSION)
    tower.save(tmp_path)
    return tmp_path


def test_the_tower_is_given_everything_before_the_test_oldest_first(tower_dir):
    data = random_dataset()
    known = known_of(data)
    users = np.array([7, 3])
    scores = TowerScorer(tower_dir, known)(users)
    tower = UserTower.load(tower_dir)
    for row, user in enumerate(users):
        events = slice(data.offsets[user], data.offsets[user + 1])
        history = data.item[events][:10]  # of 12 events the last two are TEST
        vector = tower.encode_ragged(history, np.array([0, len(history)]))
        assert scores[row] == pytest.approx((vector @ tower.item_vectors.numpy().T)[0], abs=1e-4)


def test_the_ranker_reorders_the_candidates_and_adds_none(tower_dir):
    data = random_dataset()
    known = known_of(data)
    tower = TowerScorer(tower_dir, known)
    inputs = CatalogueInputs.build(
        np.load(tower_dir / "item_vectors.npy"),
        np.zeros((30, len(ITEM_INPUTS)), np.float32),
        np.zeros((30, 2), np.float32),
        np.full((30, 1), 30, np.int32),
        np.zeros((30, 1), np.float32),
    )
    users = np.arange(data.n_users)
    unknown = np.full((data.n_users, len(USER_INPUTS)), np.nan, np.float32)
    ranked = RankedScorer(tower, known, worst_first(), inputs, unknown, n_candidates=6)
    retrieved = rank_catalogue(tower, users, known, 6).items
    assert np.array_equal(rank_catalogue(ranked, users, known, 6).items, retrieved[:, ::-1])
    assert np.all(rank_catalogue(ranked, users, known, 8).items[:, 6:] == -1)


def worst_first():
    """A ranker that turns the tower's order around."""
    rng = np.random.default_rng(0)
    rows = rng.random((600, len(RANKER_FEATURES)))
    place = RANKER_FEATURES.index("tower_rank")
    rows[:, place] = rng.integers(0, 6, 600)
    options = {"verbosity": -1, "num_threads": 1, "learning_rate": 1.0, "min_data_in_leaf": 5}
    data = lightgbm.Dataset(rows, rows[:, place])
    return lightgbm.train(options, data, num_boost_round=5)
