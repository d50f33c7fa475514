from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from training import fit
from training.baselines import Events
from training.fit import Learner, TrainingData
from training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def events(user, item, n_users, n_items):
    return Events(np.asarray(user, np.int32), np.asarray(item, np.int32), None, n_users, n_items)


def planted(n_users=150, n_items=60, length=12):
    """Each user walks round a circle of items from a random start: the next is always known."""
    rng = np.random.default_rng(0)
    walk = (rng.integers(0, n_items, n_users)[:, None] + np.arange(length + 1)) % n_items
    user = np.repeat(np.arange(n_users), length)
    return TrainingData(
        train=events(user, walk[:, :-1].ravel(), n_users, n_items),
        validation=events(np.arange(n_users), walk[:, -1], n_users, n_items),
        item_features=np.ones((n_items, 1), np.float32),
        catalogue=np.ones(n_items, dtype=bool),
    )


def told_by_features(n_users=800):
    """What a user likes is one of 16 items, told by the signs of four features alone.

    Half of the users show it in TRAIN, after an event that says nothing; the others, of whom only
    that event is known, are asked for it.
    """
    rng = np.random.default_rng(0)
    features = rng.choice([-1.0, 1.0], (n_users, 4)).astype(np.float32)
    liked = (features > 0) @ [1, 2, 4, 8]
    events_of = np.stack([rng.integers(16, 40, n_users), liked], axis=1)
    user = np.repeat(np.arange(n_users), 2)
    asked = user % 2 == 1
    held_out = asked & (np.arange(2 * n_users) % 2 == 1)
    return TrainingData(
        train=events(user[~held_out], events_of.ravel()[~held_out], n_users, 40),
        validation=events(user[held_out], liked[1::2], n_users, 40),
        item_features=np.ones((40, 1), np.float32),
        catalogue=np.ones(40, dtype=bool),
        user_features=features,
    )


GUESSED = (1 / np.log2(np.arange(2, 12))).sum() / 16  # NDCG@10 of 16 items in any order
RECIPE = Recipe(batch_positions=200, learning_rate=5e-3, average_decay=0.9)


def learned(recipe, data, epochs):
    learner = Learner(recipe, data, seed=0)
    losses = [learner.run_epoch(epoch) for epoch in range(epochs)]
    return learner, losses


def test_the_towers_solve_a_problem_whose_next_item_is_certain():
    learner, losses = learned(RECIPE, planted(), epochs=12)
    assert learner.validate() > 0.95
    assert losses[-1] < losses[0] / 3


def test_so_they_do_with_sampled_negatives():
    recipe = RECIPE.model_copy(update={"full_softmax_items": 10, "sampled_items": 256})
    learner, _ = learned(recipe, planted(), epochs=12)
    assert learner.validate() > 0.95


@pytest.mark.parametrize(
    "choice",
    [
        {"loss": "sampled-softmax", "sampling_power": 0.5, "sampled_items": 256},
        {"loss": "in-batch", "temperature": 0.5},
        {"loss": "mixed"},
        {"loss": "bpr", "sampled_items": 256},
        {"loss": "mse", "sampled_items": 256, "learning_rate": 1e-2},
        {"loss": "mse+bpr", "sampled_items": 256},
        {"encoder": "transformer", "transformer_blocks": 1},
        {"user_ids": True},
        {"unseen_by_features": True},
    ],
    ids=lambda choice: "-".join(map(str, list(choice.values())[:1])) + "-" + next(iter(choice)),
)
def test_so_they_do_under_every_choice_of_loss_and_tower(choice):
    data = planted(n_users=100, n_items=40)
    low = np.zeros(len(data.train.item), bool)
    recipe = Recipe(**(RECIPE.model_dump() | choice))
    learner, losses = learned(recipe, replace(data, low=low), epochs=12)
    assert learner.validate() > 0.9
    assert losses[-1] < losses[0]


TOLD = RECIPE.model_copy(
    update={"user_features": True, "batch_positions": 20, "learning_rate": 1e-2}
)


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"encoder": "transformer", "transformer_blocks": 1},
        {"user_ids": True},
        {"loss": "sampled-softmax", "sampled_items": 256},
        {"loss": "in-batch"},
        {"loss": "bpr", "sampled_items": 256},
    ],
    ids=str,
)
def test_what_only_the_features_of_users_tell_is_learned_from_them(choice):
    recipe = Recipe(**(TOLD.model_dump() | choice))
    learner, _ = learned(recipe, told_by_features(), epochs=12)
    assert learner.validate() > 0.95


def test_without_them_it_can_only_be_guessed():
    data = replace(told_by_features(), user_features=None)
    learner, _ = learned(TOLD.model_copy(update={"user_features": False}), data, epochs=12)
    assert learner.validate() < GUESSED + 0.1


def test_training_practises_users_of_whom_no_features_are_known():
    recipe = TOLD.model_copy(update={"id_dropout": 0.999999})
    learner, _ = learned(recipe, told_by_features(), epochs=2)
    assert not learner._model.user_tower.project_user.weight.any()


def test_training_leaves_the_features_of_users_as_they_are(tmp_path):
    data = told_by_features(n_users=60)
    learner, _ = learned(TOLD, data, epochs=2)
    learner.save(tmp_path, [])
    other = Learner(TOLD, replace(data, user_features=-data.user_features), seed=1)
    other.load(tmp_path)
    for tower in (learner.tower(), other.tower()):
        assert not tower.user_features[0].any()
        assert np.array_equal(tower.user_features[1:], data.user_features)


def test_what_was_rated_low_is_never_a_target_and_is_given_to_its_user():
    data = planted(n_users=20)
    low = np.zeros(len(data.train.item), bool)
    low[::3] = True
    learner = Learner(RECIPE, replace(data, low=low), seed=0)
    for batch in learner._sequences.batches(batch_positions=200, seed=0, epoch=0):
        for user, targets, weights, given in zip(
            batch.users, batch.targets, batch.weights, batch.given, strict=True
        ):
            rated = data.train.item[data.train.user == int(user)]
            bad = set(rated[low[data.train.user == int(user)]].tolist())
            assert not bad & set(targets[weights > 0].tolist())
            drawn = set(given[given >= 0].tolist())
            assert drawn and drawn <= bad


def test_items_without_events_are_out_of_the_loss_and_placed_by_their_features():
    data = planted()
    unseen = np.arange(60) >= 50
    kept = ~unseen[data.train.item]
    train = events(data.train.user[kept], data.train.item[kept], 150, 60)
    recipe = RECIPE.model_copy(update={"unseen_by_features": True, "id_dropout": 0.5})
    learner, _ = learned(recipe, replace(data, train=train), epochs=1)
    items = learner._average.item_tower
    by_features = items.project(items.features)
    assert torch.equal(learner.tower().item_vectors[50:], by_features[50:])
    learner._model.zero_grad()
    batch = next(learner._sequences.batches(batch_positions=200, seed=0, epoch=9))
    learner._model(batch, None).backward()
    assert not learner._model.item_tower.ids.weight.grad[50:].any()


def test_items_that_were_seen_are_not_counted_as_right():
    data = planted()
    repeated = TrainingData(
        data.train,
        events(data.train.user[::12], data.train.item[::12], 150, 60),
        data.item_features,
        data.catalogue,
    )
    assert learned(RECIPE, repeated, epochs=1)[0].validate() == 0


def test_an_interrupted_learner_ends_where_the_other_does(tmp_path):
    data = planted(n_users=30)
    whole, _ = learned(RECIPE, data, epochs=3)
    first, _ = learned(RECIPE, data, epochs=1)
    first.save(tmp_path, [{"epoch": 1, "loss": 2.5}])
    second = Learner(RECIPE, data, seed=5)  # another start, which the checkpoint replaces
    assert second.load(tmp_path) == [{"epoch": 1, "loss": 2.5}]
    second._seed = 0
    for epoch in (1, 2):
        second.run_epoch(epoch)
    assert torch.equal(whole.tower().item_vectors, second.tower().item_vectors)
    history = np.arange(4, dtype=np.int32), np.array([0, 4])
    np.testing.assert_array_equal(
        whole.tower().encode_ragged(*history), second.tower().encode_ragged(*history)
    )


class EverythingSaysWhere(TorchFunctionMode):
    """Fails where a tensor is made without naming its device: on a GPU it would be elsewhere."""

    MAKERS = (torch.arange, torch.rand, torch.randn, torch.zeros, torch.ones, torch.empty)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        assert function not in self.MAKERS or "device" in kwargs, function
        assert function is not torch.from_numpy, "what is there comes with the batch or the model"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"full_softmax_items": 10},
        {"loss": "sampled-softmax"},
        {"loss": "mixed", "unseen_by_features": True},
        {"loss": "mse+bpr"},
        {"encoder": "transformer", "user_ids": True},
        {"user_features": True},
    ],
    ids=str,
)
def test_all_that_a_step_computes_with_is_on_the_models_device(choice):
    data = replace(planted(n_users=20), user_features=np.ones((20, 4), np.float32))
    learner = Learner(Recipe(**(RECIPE.model_dump() | choice)), data, seed=0)
    model = learner._model
    held = {*model.parameters(), *model.buffers()}
    for module in model.modules():
        loose = [value for value in vars(module).values() if isinstance(value, torch.Tensor)]
        assert held.issuperset(loose)  # what `.to` would leave behind
    batch = next(learner._sequences.batches(batch_positions=200, seed=0, epoch=0))
    sampled = model.objective.draw(np.random.default_rng(0))
    with EverythingSaysWhere():
        model(batch, sampled).backward()


def test_a_batch_moves_whole():
    learner = Learner(RECIPE, planted(n_users=5), seed=0)
    batch = next(learner._sequences.batches(batch_positions=200, seed=0, epoch=0))
    moved = [value for value in vars(batch.to(torch.device("meta"))).values()]
    assert [value.device.type for value in moved if isinstance(value, torch.Tensor)] == ["meta"] * 5
    assert batch.to(torch.device("cpu")).history is batch.history


def test_on_another_device_the_steps_are_there_and_lists_are_ranked_here(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "autocast", lambda *where, enabled: asked.append((*where, enabled)))
    monkeypatch.setattr(fit, "multiplies_bfloat16", lambda device: device.type == "meta")
    learner = Learner(RECIPE, planted(n_users=5), seed=0, device=torch.device("meta"))
    assert asked == [("meta", torch.bfloat16, True)]
    for model, device in ((learner._model, "meta"), (learner._average, "meta")):
        assert {tensor.device.type for tensor in model.state_dict().values()} == {device}
    optimised = learner._optimiser.param_groups[0]["params"]
    assert {parameter.device.type for parameter in optimised} == {"meta"}
    average = Learner(RECIPE, planted(n_users=5), seed=1)._model  # stands for one that was moved
    learner._average = average
    expected = average.item_tower.eval()()
    assert torch.equal(learner.tower().item_vectors, expected)


def test_two_workers_gradients_add_up_to_those_of_one():
    data = planted(n_users=40)
    recipe = RECIPE.model_copy(update={"dropout": 0.0, "id_dropout": 0.0})

    def gradient(rank, workers):
        learner = Learner(recipe, data, seed=0)
        batches = learner._sequences.batches(
            batch_positions=200, seed=0, epoch=0, rank=rank, workers=workers
        )
        learner._model(next(batches), None).backward()
        return learner._model.item_tower.ids.weight.grad

    torch.testing.assert_close(gradient(0, 1), gradient(0, 2) + gradient(1, 2))


def test_a_worker_without_a_window_in_a_batch_has_a_gradient_of_zeros():
    data = replace(planted(n_users=1), user_features=np.ones((1, 4), np.float32))
    learner = Learner(RECIPE, data, seed=0)
    (batch,) = learner._sequences.batches(batch_positions=200, seed=0, epoch=0, rank=1, workers=2)
    learner._model(batch, None).backward()
    gradients = [parameter.grad for parameter in learner._model.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
