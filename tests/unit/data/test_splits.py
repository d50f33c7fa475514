import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.datasets import make_dataset, random_dataset
from training.data.splits import DROPPED, PROTOCOLS, TEST, TRAIN, VALIDATION, core, split
from training.errors import UserError


@pytest.mark.parametrize("protocol", ["leave-one-out", "user-temporal", "user-random"])
def test_every_kept_event_is_in_exactly_one_fold(protocol):
    data = random_dataset()
    fold = split(data, protocol).fold
    kept = core(data.user, data.item, 5 if protocol == "leave-one-out" else 0)
    assert np.array_equal(fold != DROPPED, kept)
    assert set(np.unique(fold[kept])) == {TRAIN, VALIDATION, TEST}


def test_leave_one_out_holds_out_the_last_event_and_validates_on_the_second_last():
    data = make_dataset([0] * 4 + [1] * 3, [0, 1, 2, 3, 1, 2, 0], timestamp=[3, 1, 2, 4, 5, 6, 7])
    cut = split(data, "leave-one-out", k_core=0)
    assert data.item[:4].tolist() == [1, 2, 0, 3]
    assert cut.fold.tolist() == [TRAIN, TRAIN, VALIDATION, TEST, TRAIN, VALIDATION, TEST]
    assert cut.catalogue.tolist() == [True, True, True, False]


def test_a_user_with_one_event_is_never_held_out():
    data = make_dataset([0, 1, 1, 2, 2, 2], [0, 0, 1, 0, 1, 2])
    fold = split(data, "leave-one-out", k_core=0).fold
    assert fold.tolist() == [TRAIN, TRAIN, TEST, TRAIN, VALIDATION, TEST]


def test_user_temporal_holds_out_the_last_fifth_rounded_down():
    data = make_dataset([0] * 14 + [1] * 4, list(range(14)) + list(range(4)), timestamp=range(18))
    fold = split(data, "user-temporal").fold
    assert np.flatnonzero(fold == TEST).tolist() == [12, 13]


def test_user_random_holds_out_as_many_events_but_not_the_last_ones():
    data = random_dataset(events_per_user=20)
    temporal, drawn = split(data, "user-temporal").fold, split(data, "user-random").fold
    for user in range(data.n_users):
        rows = slice(data.offsets[user], data.offsets[user + 1])
        assert (drawn[rows] == TEST).sum() == (temporal[rows] == TEST).sum() == 4
    assert not np.array_equal(drawn == TEST, temporal == TEST)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_seed_decides_the_split_and_its_hash(protocol):
    data = random_dataset(n_users=200)
    first = split(data, protocol, seed=1, validation_users=20)
    again = split(data, protocol, seed=1, validation_users=20)
    other = split(data, protocol, seed=2, validation_users=20)
    assert first.hash == again.hash
    assert (first.hash == other.hash) == (protocol == "leave-one-out")
    assert first.hash != split(data, "user-temporal", k_core=7).hash


def test_global_temporal_tests_warm_users_and_items_of_the_last_tenth():
    data = random_dataset(n_users=60)
    fold = split(data, "global-temporal").fold
    begins = np.sort(data.timestamp)[int(data.n_events * 0.9)]
    assert data.timestamp[fold == TEST].min() >= begins
    assert data.timestamp[(fold == TRAIN) | (fold == VALIDATION)].max() <= begins
    before = data.timestamp < begins
    assert np.isin(data.user[fold == TEST], data.user[before]).all()
    assert np.isin(data.item[fold == TEST], data.item[before]).all()
    assert data.timestamp[fold == VALIDATION].min() >= np.quantile(data.timestamp, 0.8)


@pytest.mark.parametrize("protocol", ["user-temporal", "user-random", "global-temporal"])
def test_validation_takes_no_more_users_than_asked_for(protocol):
    data = random_dataset(n_users=100)
    fold = split(data, protocol, validation_users=7).fold
    assert 1 <= len(np.unique(data.user[fold == VALIDATION])) <= 7


def test_a_held_out_repeat_of_a_known_pair_is_dropped():
    user = [0] * 5 + [1] * 5
    data = make_dataset(user, [0, 1, 2, 3, 0, 0, 1, 2, 3, 4], timestamp=range(10))
    fold = split(data, "user-temporal").fold
    assert fold[4] == DROPPED
    assert fold[9] == TEST


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=60, unique=True),
    st.integers(1, 4),
)
def test_core_is_the_largest_set_in_which_everything_has_k_events(pairs, k):
    user, item = np.array(pairs).T
    left = set(pairs)
    while True:  # one pair at a time, as the definition says
        bad = next(
            (
                (u, i)
                for u, i in left
                if sum(a == u for a, _ in left) < k or sum(b == i for _, b in left) < k
            ),
            None,
        )
        if bad is None:
            break
        left.remove(bad)
    kept = core(user, item, k)
    assert {pair for pair, keep in zip(pairs, kept, strict=True) if keep} == left


def test_a_core_that_leaves_nothing_says_so():
    with pytest.raises(UserError, match="50-core"):
        split(random_dataset(), "user-random", k_core=50)


def test_a_single_user_cannot_be_split():
    with pytest.raises(UserError, match="single user"):
        split(make_dataset([0] * 9, range(9)), "leave-one-out")


def test_global_temporal_needs_time():
    data = make_dataset([0, 0, 1, 1], [0, 1, 0, 1])
    with pytest.raises(UserError, match="no time"):
        split(data, "global-temporal")


def test_too_few_events_name_the_fold_that_is_empty():
    data = make_dataset([0, 0, 1, 1], [0, 1, 0, 1])
    with pytest.raises(UserError, match="no test event"):
        split(data, "user-temporal")


def test_an_unknown_protocol_names_those_known():
    with pytest.raises(UserError, match="leave-one-out"):
        split(random_dataset(), "random")
