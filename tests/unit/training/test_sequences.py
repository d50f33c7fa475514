import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.sequences import Sequences


def sequences(lengths, window=5, ahead=1, decay=0.0, shuffled=False):
    """Users whose items are 100 * user + place, so that a number says where it comes from."""
    item = [100 * user + place for user, length in enumerate(lengths) for place in range(length)]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    options = {"window": window, "ahead": ahead, "decay": decay, "shuffled": shuffled}
    return Sequences(np.array(item, np.int32), offsets, **options)


def predictions(batches):
    """(last item seen, target) of every predicted position, sorted."""
    pairs = []
    for batch in batches:
        row, place, target = torch.nonzero(batch.weights, as_tuple=True)
        pairs += zip(
            batch.history[row, place].tolist(),
            batch.targets[row, place, target].tolist(),
            strict=True,
        )
    return sorted(pairs)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=8),
    st.integers(1, 12),
    st.integers(1, 30),
    st.integers(0, 5),
)
def test_every_event_after_a_users_first_is_predicted_once_an_epoch(lengths, window, size, epoch):
    batches = list(
        sequences(lengths, window=window).batches(batch_positions=size, seed=1, epoch=epoch)
    )
    expected = [
        (100 * user + place - 1, 100 * user + place)
        for user, length in enumerate(lengths)
        for place in range(1, length)
    ]
    assert predictions(batches) == expected
    assert sum(batch.positions for batch in batches) == len(expected)


def test_shuffled_events_stay_with_their_user_and_come_in_another_order_each_epoch():
    shuffled = sequences([30, 0, 12], window=40, shuffled=True)
    orders = []
    for epoch in (0, 1, 1):
        pairs = predictions(shuffled.batches(batch_positions=100, seed=1, epoch=epoch))
        assert all(last // 100 == target // 100 for last, target in pairs)
        assert len(pairs) == 29 + 11
        assert len({target for _, target in pairs}) == len(pairs)
        orders.append(pairs)
    assert orders[0] != orders[1] == orders[2]


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_share_the_batches_that_one_would_have(workers):
    lengths = [30, 1, 7, 0, 12, 3, 22]
    options = {"batch_positions": 20, "seed": 3, "epoch": 1}
    alone = list(sequences(lengths).batches(**options))
    shares = [
        list(sequences(lengths).batches(rank=rank, workers=workers, **options))
        for rank in range(workers)
    ]
    for step, batch in enumerate(alone):
        parts = [share[step] for share in shares]
        assert {part.positions for part in parts} == {batch.positions}
        assert sorted(sum((predictions([part]) for part in parts), [])) == predictions([batch])
    assert {len(share) for share in shares} == {len(alone)}


def test_an_epoch_is_cut_and_ordered_anew_and_the_same_one_alike():
    made = sequences([60] * 4)

    def epoch(number):
        return [b.history.tolist() for b in made.batches(batch_positions=16, seed=0, epoch=number)]

    assert epoch(0) == epoch(0)
    assert epoch(0) != epoch(1)


def test_a_window_holds_consecutive_events_of_one_user():
    for batch in sequences([23, 9, 40]).batches(batch_positions=15, seed=0, epoch=0):
        inside = batch.weights.any(dim=2)
        for row, mask in zip(batch.history, inside, strict=True):
            assert set(torch.diff(row[mask]).tolist()) <= {1}
            assert mask.sum() <= 5


def test_several_targets_share_a_position_and_stop_at_the_users_end():
    (batch,) = sequences([4, 2], ahead=3).batches(batch_positions=100, seed=0, epoch=0)
    user = int(torch.nonzero(batch.history[:, 0] == 0)[0])
    assert batch.targets[user, 0].tolist() == [1, 2, 3]
    torch.testing.assert_close(batch.weights[user, 0], torch.full((3,), 1 / 3))
    assert batch.weights[user, 2].tolist() == [1, 0, 0]
    assert torch.all(batch.weights.sum(dim=2)[batch.weights.any(dim=2)] == 1)


def test_targets_further_ahead_count_less_and_together_one():
    made = sequences([4], ahead=3, decay=1.0)
    (batch,) = made.batches(batch_positions=10, seed=0, epoch=0)
    shares = np.array([1, 1 / 2, 1 / 3])
    expected = [shares / shares.sum(), [2 / 3, 1 / 3, 0], [1, 0, 0]]
    np.testing.assert_allclose(batch.weights[0, :3], expected, rtol=1e-5)
