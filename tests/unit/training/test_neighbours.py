import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import training.neighbours
from training.model.bundle import NEIGHBOURS
from training.neighbours import neighbours

ITEMS = 7


def arrays(histories):
    offsets = np.cumsum([0, *map(len, histories)])
    return np.array([i for items in histories for i in items], np.int32), offsets


def by_hand(histories, n_items, most, recent):
    """The definition, pair by pair."""
    sets = [set(items[-recent:]) for items in histories]
    n = [sum(i in items for items in sets) for i in range(n_items)]
    rows = []
    for i in range(n_items):
        both = [sum(i in items and j in items for items in sets) for j in range(n_items)]
        found = [
            (j, both[j] / np.sqrt((n[i] + 20) * (n[j] + 20)))
            for j in range(n_items)
            if j != i and both[j]
        ]
        rows.append(sorted(found, key=lambda pair: (-np.float32(pair[1]), pair[0]))[:most])
    return rows


@settings(deadline=None)
@given(
    histories=st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=9), max_size=30),
    most=st.integers(1, ITEMS),
    recent=st.integers(1, 9),
    pairs_at_once=st.sampled_from([1, 3 * ITEMS, 1000]),
)
def test_neighbours_are_what_their_definition_says(histories, most, recent, pairs_at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.neighbours, "NEIGHBOURS", most)
        patch.setattr(training.neighbours, "_RECENT_EVENTS", recent)
        patch.setattr(training.neighbours, "_PAIRS_AT_ONCE", pairs_at_once)
        ids, weights = neighbours(*arrays(histories), ITEMS)
    assert (ids.dtype, ids.shape) == (np.int32, (ITEMS, most))
    assert (weights.dtype, weights.shape) == (np.float32, (ITEMS, most))
    for item, expected in enumerate(by_hand(histories, ITEMS, most, recent)):
        n = len(expected)
        assert ids[item, :n].tolist() == [other for other, _ in expected]
        np.testing.assert_allclose(weights[item, :n], [w for _, w in expected], rtol=1e-6)
        assert (ids[item, n:] == ITEMS).all()
        assert not weights[item, n:].any()


def test_only_the_last_two_hundred_events_of_a_user_count():
    history = np.arange(202, dtype=np.int32)
    ids, _ = neighbours(history, np.array([0, 202]), 202)
    assert (ids[:2] == 202).all()
    assert ids[2, 0] == 3


def test_ties_at_the_end_of_the_list_go_to_the_items_that_come_first():
    ids, weights = neighbours(np.arange(150, dtype=np.int32), np.array([0, 150]), 150)
    assert ids[0].tolist() == list(range(1, NEIGHBOURS + 1))
    assert ids[149].tolist() == list(range(NEIGHBOURS))
    assert (weights == weights[0, 0]).all()


def test_an_item_that_nobody_has_is_without_neighbours():
    ids, weights = neighbours(np.array([0, 2], np.int32), np.array([0, 2]), 3)
    assert (ids[1] == 3).all()
    assert not weights[1].any()
