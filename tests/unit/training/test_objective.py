"""What the recipe's name of a loss stands for, worked out by hand."""

from math import exp, log

import numpy as np
import pytest
import torch

from training.objective import Objective
from training.recipe import Recipe

USERS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
ITEMS = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.5, 0.5]])
TARGETS, WEIGHTS = torch.tensor([[0], [1]]), torch.ones(2, 1)
GIVEN = torch.empty(2, 0, dtype=torch.int64)


def loss(sampled=None, **settings):
    objective = Objective(Recipe(**settings), np.array([2, 1, 1]))
    return float(objective(USERS, ITEMS, TARGETS, WEIGHTS, sampled, GIVEN))


def test_the_combined_loss_is_its_shares_of_mse_and_bpr():
    # The sample scores .5 for both; targets score 1 and 2.
    mse = (0 + 0.25) + (1 + 0.25)
    bpr = log(1 + exp(0.5 - 1)) + log(1 + exp(0.5 - 2))
    sampled = torch.tensor([2])
    assert loss(sampled, loss="mse") == pytest.approx(mse)
    assert loss(sampled, loss="bpr") == pytest.approx(bpr)
    combined = loss(sampled, loss="mse+bpr", mse_share=0.25)
    assert combined == pytest.approx(0.25 * mse + 0.75 * bpr)


def test_in_batch_negatives_are_the_others_targets_corrected_and_at_a_temperature():
    # Two targets are drawn with chances 1/2 and 1/4; a negative counts 1 / (2 q) times.
    first = log(1 + exp(0 / 0.5) / (2 * 0.25) / exp(1 / 0.5))
    second = log(1 + exp(0 / 0.5) / (2 * 0.5) / exp(2 / 0.5))
    assert loss(loss="in-batch", temperature=0.5) == pytest.approx(first + second)
