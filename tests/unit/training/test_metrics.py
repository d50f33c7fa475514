from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.metrics import (
    auc,
    diversity,
    gain_interval,
    gini,
    hit_matrix,
    log_loss,
    summarise,
    user_metrics,
)

N_ITEMS = 12

ranked = st.permutations(range(N_ITEMS)).flatmap(
    lambda items: st.integers(0, 8).map(lambda filled: items[:filled] + [-1] * (8 - filled))
)
wanted = st.sets(st.integers(0, N_ITEMS - 1), min_size=1)
cases = st.lists(st.tuples(ranked, wanted), min_size=1, max_size=6)


def as_arrays(users):
    lists = np.array([items for items, _ in users], np.int32)
    relevant = np.array([item for _, items in users for item in items], np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(items) for _, items in users])])
    return lists, relevant, offsets


def by_definition(items, relevant, k):
    """The metrics of one user, written out from their definitions."""
    found = [item in relevant for item in items[:k]]
    ranks = [rank for rank, good in enumerate(found, start=1) if good]
    reachable = min(k, len(relevant))
    ideal = sum(1 / log2(rank + 1) for rank in range(1, reachable + 1))
    return {
        "ndcg": sum(1 / log2(rank + 1) for rank in ranks) / ideal,
        "recall": len(ranks) / len(relevant),
        "recall_min": len(ranks) / reachable,
        "hit": float(bool(ranks)),
        "precision": len(ranks) / k,
        "map": sum(sum(found[:rank]) / rank for rank in ranks) / reachable,
        "mrr": 1 / ranks[0] if ranks else 0.0,
    }


@settings(max_examples=100, deadline=None)
@given(cases, st.integers(1, 8))
def test_the_metrics_are_those_of_their_definitions(users, k):
    lists, relevant, offsets = as_arrays(users)
    hits = hit_matrix(lists, relevant, offsets, N_ITEMS)
    got = user_metrics(hits, np.diff(offsets), k)
    for row, (items, wanted) in enumerate(users):
        expected = by_definition(items, wanted, k)
        assert {name: values[row] for name, values in got.items()} == pytest.approx(expected)


def test_a_perfect_list_scores_one_however_few_items_are_relevant():
    lists = np.array([[3, 0, 1, 2, 4]], np.int32)
    hits = hit_matrix(lists, np.array([3]), np.array([0, 1]), N_ITEMS)
    perfect = user_metrics(hits, np.array([1]), 5)
    assert perfect["ndcg"] == perfect["map"] == perfect["recall_min"] == 1
    assert perfect["precision"] == pytest.approx(0.2)


def test_more_relevant_items_than_places_leave_a_perfect_list_perfect_but_for_recall():
    lists = np.array([[0, 1, 2, 3]], np.int32)
    hits = hit_matrix(lists, np.arange(8), np.array([0, 8]), N_ITEMS)
    perfect = user_metrics(hits, np.array([8]), 4)
    assert perfect["ndcg"] == perfect["map"] == perfect["recall_min"] == 1
    assert perfect["recall"] == pytest.approx(0.5)


def test_an_empty_place_is_no_hit_even_after_a_user_who_wants_the_last_item():
    lists = np.array([[0, 1], [-1, -1]], np.int32)
    relevant = np.array([N_ITEMS - 1, 5])
    assert not hit_matrix(lists, relevant, np.array([0, 1, 2]), N_ITEMS).any()


def summary(hits, lists, seed=0):
    n_relevant = np.ones(len(hits), int)
    catalogue = np.arange(N_ITEMS) < 10
    return summarise(lists, hits, n_relevant, catalogue, cutoffs=(1, 3), seed=seed)


def test_the_summary_has_every_metric_at_every_cutoff_inside_its_interval():
    rng = np.random.default_rng(3)
    lists = rng.random((200, 10)).argsort(axis=1)[:, :3].astype(np.int32)
    result = summary(rng.random((200, 3)) < 0.3, lists)
    names = ("ndcg", "recall", "recall_min", "hit", "precision", "map", "mrr", "coverage", "gini")
    assert set(result) == {f"{name}@{k}" for name in names for k in (1, 3)}
    for interval in result.values():
        assert interval.low <= interval.value <= interval.high


def test_the_interval_of_a_hit_rate_is_that_of_the_binomial():
    hits = np.zeros((400, 3), bool)
    hits[:100, 0] = True
    interval = summary(hits, np.zeros((400, 3), np.int32))["hit@1"]
    half_width = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert interval.value == 0.25
    assert interval.low == pytest.approx(0.25 - half_width, abs=0.008)
    assert interval.high == pytest.approx(0.25 + half_width, abs=0.008)


def test_the_seed_decides_the_interval():
    rng = np.random.default_rng(1)
    hits = rng.random((100, 3)) < 0.3
    lists = np.zeros((100, 3), np.int32)
    assert summary(hits, lists, seed=5) == summary(hits, lists, seed=5)
    assert summary(hits, lists, seed=5) != summary(hits, lists, seed=6)


def test_coverage_is_the_share_of_the_catalogue_in_anybodys_list():
    lists = np.array([[0, 1, 2], [0, 2, -1]], np.int32)
    result = summary(np.zeros((2, 3), bool), lists)
    assert result["coverage@1"].value == pytest.approx(0.1)
    assert result["coverage@3"].value == pytest.approx(0.3)


def test_the_interval_of_a_gain_is_paired():
    rng = np.random.default_rng(2)
    before = rng.random(300)
    gain = gain_interval(before, before + 0.01, seed=0)
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.01, 0.01, 0.01))


@settings(max_examples=30, deadline=None)
@given(cases, st.integers(1, 8))
def test_the_metrics_are_those_of_trec_eval(users, k):
    import pytrec_eval

    lists, relevant, offsets = as_arrays(users)
    got = user_metrics(hit_matrix(lists, relevant, offsets, N_ITEMS), np.diff(offsets), k)
    wanted = {str(row): {str(item): 1 for item in items} for row, (_, items) in enumerate(users)}
    shown = {
        str(row): {str(item): float(-place) for place, item in enumerate(items) if item >= 0}
        for row, (items, _) in enumerate(users)
    }
    measures = {f"{name}.{k}" for name in ("ndcg_cut", "recall", "P", "success")}
    judged = pytrec_eval.RelevanceEvaluator(wanted, measures | {"recip_rank"}).evaluate(shown)
    names = {"ndcg": "ndcg_cut", "recall": "recall", "precision": "P", "hit": "success"}
    for row in range(len(users)):
        theirs = judged.get(str(row))
        if theirs is None:  # it leaves out who was shown nothing
            continue
        for ours, name in names.items():
            assert got[ours][row] == pytest.approx(theirs[f"{name}_{k}"])
        first = 1 / theirs["recip_rank"] if theirs["recip_rank"] else np.inf
        assert got["mrr"][row] == pytest.approx(1 / first if first <= k else 0)


scored = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.booleans()), min_size=2)


@settings(max_examples=50, deadline=None)
@given(scored.filter(lambda pairs: len({good for _, good in pairs}) == 2))
def test_auc_and_log_loss_are_those_of_scikit_learn(pairs):
    from sklearn.metrics import log_loss as their_log_loss
    from sklearn.metrics import roc_auc_score

    scores = np.array([score for score, _ in pairs])
    good = np.array([good for _, good in pairs])
    assert auc(scores, good) == pytest.approx(roc_auc_score(good, scores))
    assert log_loss(scores, good) == pytest.approx(their_log_loss(good, scores))


def test_auc_needs_both_kinds():
    assert np.isnan(auc(np.array([1.0, 2.0]), np.array([True, True])))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any))
def test_gini_is_half_the_mean_difference_over_the_mean(counts):
    every = np.array(counts, float)
    difference = np.abs(every[:, None] - every[None]).mean()
    assert gini(every) == pytest.approx(difference / (2 * every.mean()))


@settings(max_examples=50, deadline=None)
@given(ranked, st.lists(st.sets(st.integers(0, 3)), min_size=N_ITEMS, max_size=N_ITEMS))
def test_diversity_is_one_less_the_mean_cosine_of_pairs(items, genres):
    hot = np.array([[genre in own for genre in range(4)] for own in genres], float)
    (got,) = diversity(np.array([items]), hot, 5)
    shown = [hot[item] for item in items[:5] if item >= 0]
    cosines = [
        a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12)
        for place, a in enumerate(shown)
        for b in shown[:place]
    ]
    assert got == pytest.approx(1 - np.mean(cosines) if cosines else 0)
