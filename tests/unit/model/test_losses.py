from math import exp, log

import pytest
import torch
from torch.nn import functional

from training.model.losses import bpr, full_softmax, mixed_contrastive, mse, sampled_softmax

# Two positions and three items in two dimensions; the scores are easily worked out by hand.
USERS = [[1.0, 0.0], [0.0, 2.0]]
ITEMS = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
SCORES = [[1.0, 0.0, 1.0], [0.0, 2.0, 2.0]]


def tensors():
    return torch.tensor(USERS), torch.tensor(ITEMS)


def test_full_softmax_of_one_target_each():
    loss = full_softmax(*tensors(), torch.tensor([[0], [2]]), torch.ones(2, 1))
    first = log(exp(1) + exp(0) + exp(1)) - 1
    second = log(exp(0) + exp(2) + exp(2)) - 2
    assert float(loss) == pytest.approx(first + second, abs=1e-5)


def test_full_softmax_of_several_weighted_targets():
    targets = torch.tensor([[0, 1], [2, 0]])
    weights = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    total = [log(sum(map(exp, row))) for row in SCORES]
    expected = 0.25 * (total[0] - 1) + 0.75 * (total[0] - 0) + (total[1] - 2)
    loss = full_softmax(*tensors(), targets, weights)
    assert float(loss) == pytest.approx(expected, abs=1e-5)


def test_full_softmax_has_the_gradients_of_cross_entropy_across_chunks(monkeypatch):
    monkeypatch.setattr("training.model.losses._CHUNK", 4)
    torch.manual_seed(0)
    users, items = torch.randn(10, 8, requires_grad=True), torch.randn(6, 8, requires_grad=True)
    targets, weights = torch.randint(0, 6, (10, 3)), torch.rand(10, 3)
    (2 * full_softmax(users, items, targets, weights)).backward()
    ours = users.grad.clone(), items.grad.clone()
    users.grad = items.grad = None
    log_share = functional.log_softmax(users @ items.T, dim=1)
    (-2 * (weights * log_share.gather(1, targets)).sum()).backward()
    torch.testing.assert_close(ours[0], users.grad)
    torch.testing.assert_close(ours[1], items.grad)


def test_full_softmax_survives_large_scores_and_no_positions():
    users, items = tensors()
    loss = full_softmax(1000 * users, items, torch.tensor([[1], [0]]), torch.ones(2, 1))
    assert float(loss) == pytest.approx(1000 + log(2) + 2000 + log(2))
    none = full_softmax(users[:0], items, torch.zeros(0, 1, dtype=torch.long), torch.ones(0, 1))
    assert float(none) == 0


def test_sampled_softmax_leaves_out_samples_that_are_targets():
    # Position 0: target 0 against the samples 1 and 2. Position 1: target 2 against 1 alone.
    loss = sampled_softmax(
        *tensors(), torch.tensor([[0], [2]]), torch.ones(2, 1), torch.tensor([1, 2])
    )
    first = log(exp(1) + exp(0) + exp(1)) - 1
    second = log(exp(2) + exp(2)) - 2
    assert float(loss) == pytest.approx(first + second, abs=1e-5)


def test_a_target_without_weight_is_no_target_to_sampled_softmax():
    targets, weights = torch.tensor([[0, 1], [2, 1]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = sampled_softmax(*tensors(), targets, weights, torch.tensor([1]))
    first = log(exp(1) + exp(0)) - 1
    second = log(exp(2) + exp(2)) - 2
    assert float(loss) == pytest.approx(first + second, abs=1e-5)


def test_sampled_softmax_over_every_item_is_full_softmax():
    torch.manual_seed(0)
    users, items = torch.randn(20, 8), torch.randn(7, 8)
    targets, weights = torch.randint(0, 7, (20, 1)), torch.ones(20, 1)
    sampled = sampled_softmax(users, items, targets, weights, torch.arange(7))
    torch.testing.assert_close(sampled, full_softmax(users, items, targets, weights))


def test_log_q_lets_a_sample_count_as_often_as_it_was_likely_to_be_left_out():
    log_q = torch.tensor([0.2, 0.3, 0.5]).log()
    loss = sampled_softmax(
        *tensors(), torch.tensor([[0], [1]]), torch.ones(2, 1), torch.tensor([2, 2]), log_q
    )
    first = log(exp(1) + 2 * exp(1) / (2 * 0.5)) - 1
    second = log(exp(2) + 2 * exp(2) / (2 * 0.5)) - 2
    assert float(loss) == pytest.approx(first + second, abs=1e-5)


def test_many_samples_with_log_q_estimate_the_full_softmax():
    torch.manual_seed(0)
    users, items = torch.randn(20, 8), torch.randn(7, 8)
    targets, weights = torch.randint(0, 7, (20, 1)), torch.ones(20, 1)
    share = torch.softmax(torch.randn(7), 0)
    sampled = torch.multinomial(share, 20_000, replacement=True)
    loss = sampled_softmax(users, items, targets, weights, sampled, share.log())
    assert float(loss) == pytest.approx(
        float(full_softmax(users, items, targets, weights)), rel=0.01
    )


def test_given_negatives_stand_beside_those_of_the_batch():
    log_q = torch.tensor([0.5, 0.25, 0.25]).log()
    given = torch.tensor([[1, -1], [0, 0]])
    loss = mixed_contrastive(
        *tensors(), torch.tensor([[0], [2]]), torch.ones(2, 1), torch.tensor([0, 2]), log_q, given
    )
    # Position 0: item 2 of the batch weighs 1 / (2 * .25), and item 1 was given.
    first = log(exp(1) + exp(1) / (2 * 0.25) + exp(0)) - 1
    second = log(exp(2) + exp(0) / (2 * 0.5) + 2 * exp(0)) - 2
    assert float(loss) == pytest.approx(first + second, abs=1e-5)


def test_bpr_averages_over_samples_that_are_no_targets():
    loss = bpr(*tensors(), torch.tensor([[0], [2]]), torch.ones(2, 1), torch.tensor([1, 2]))
    first = (log(1 + exp(0 - 1)) + log(1 + exp(1 - 1))) / 2
    second = log(1 + exp(2 - 2))
    assert float(loss) == pytest.approx(first + second, abs=1e-5)


def test_mse_wants_ones_of_targets_and_zeros_of_samples():
    loss = mse(*tensors(), torch.tensor([[0], [1]]), torch.ones(2, 1), torch.tensor([1, 2]))
    first = (1 - 1) ** 2 + (0**2 + 1**2) / 2
    second = (2 - 1) ** 2 + 2**2
    assert float(loss) == pytest.approx(first + second, abs=1e-5)


@pytest.mark.parametrize("loss", [bpr, mse])
def test_targets_share_the_loss_of_a_position_by_weight(loss):
    users, items = tensors()
    sampled = torch.tensor([2])

    def of(targets, weights):
        return float(
            loss(users[:1], items, torch.tensor([targets]), torch.tensor([weights]), sampled)
        )

    apart = 0.25 * of([0], [1.0]) + 0.75 * of([1], [1.0])
    assert of([0, 1], [0.25, 0.75]) == pytest.approx(apart, abs=1e-6)
