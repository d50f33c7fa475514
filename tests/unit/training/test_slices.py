import numpy as np
import pytest

from training.slices import make_slices, measure

EVENTS = np.array([6, 3, 2, 1])  # of four items: the first holds half of all
FIRST_MET = np.array([0.0, 0.2, 0.5, 0.95])
LENGTHS = np.array([1, 2, 3, 4, 5, 6])


def items_of(slices, name):
    (found,) = [part for part in slices if part.name == name]
    return np.flatnonzero(found.items).tolist()


def test_users_fall_into_thirds_and_items_by_the_events_before_them():
    slices = make_slices(LENGTHS, EVENTS, FIRST_MET)
    activity = [np.flatnonzero(part.users).tolist() for part in slices if part.by == "activity"]
    assert activity == [[0, 1], [2, 3], [4, 5]]
    assert [items_of(slices, name) for name in ("head", "middle", "tail")] == [[0], [1], [2, 3]]
    assert items_of(slices, "new") == [3] and items_of(slices, "older") == [0, 1, 2]


def test_a_slice_that_nobody_is_in_and_newness_without_time_are_left_out():
    names = [part.name for part in make_slices(np.full(4, 7), EVENTS, None)]
    assert "some events" not in names and "new" not in names
    every_item_old = make_slices(LENGTHS, EVENTS, np.zeros(4))
    assert "new" not in [part.name for part in every_item_old]


def test_a_slice_of_items_counts_only_its_own_as_relevant():
    slices = {part.name: part for part in make_slices(LENGTHS, EVENTS, FIRST_MET)}
    recommended = np.array([[0, 3], [0, 1], [2, 3], [1, 0], [3, -1], [0, 1]])
    relevant, offsets = np.array([0, 3, 3, 3, 1, 0]), np.array([0, 2, 3, 4, 5, 5, 6])

    def of(name):
        users, metrics = measure(slices[name], recommended, relevant, offsets, cutoffs=(2,), seed=0)
        return users, metrics["recall@2"].value, metrics["ndcg@2"].value

    # Users 0, 1 and 2 want the tail's item 3, which 0 and 2 are shown in second place.
    assert of("tail") == (3, pytest.approx(2 / 3), pytest.approx(2 / 3 / np.log2(3)))
    assert of("head") == (2, 1.0, 1.0)
    assert of("few events")[0] == 2


def test_a_slice_without_relevant_items_measures_nobody():
    new = [part for part in make_slices(LENGTHS, EVENTS, FIRST_MET) if part.name == "new"][0]
    nothing = measure(
        new, np.zeros((6, 1), int), np.zeros(6, int), np.arange(7), cutoffs=(1,), seed=0
    )
    assert nothing == (0, {})
