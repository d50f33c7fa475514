import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.model.blend import load_tower
from training.model.transformer import TransformerConfig, TransformerTower
from training.model.two_tower import DIMENSION, ItemTower, TowerConfig, UserTower

ITEMS = 30


def tower(history_length=200, seed=0, kind=UserTower, **known):
    torch.manual_seed(seed)
    config = TowerConfig if kind is UserTower else TransformerConfig
    made = kind(config(history_length=history_length, **known)).eval()
    made.item_vectors = torch.randn(ITEMS, DIMENSION)
    return made


every_kind = pytest.mark.parametrize("kind", [UserTower, TransformerTower])


def ragged(*histories):
    offsets = np.cumsum([0, *map(len, histories)])
    return np.array([item for history in histories for item in history], np.int32), offsets


@every_kind
@settings(max_examples=20, deadline=None)
@given(history=st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=40))
def test_training_sees_at_every_position_what_serving_encodes_of_that_prefix(kind, history):
    made = tower(kind=kind)
    with torch.no_grad():
        vectors = made.item_vectors[torch.tensor(history)][None]
        states = made(vectors, torch.ones(1, len(history), dtype=torch.bool)).numpy()
    prefixes = [history[: end + 1] for end in range(len(history))]
    served = made.encode_ragged(*ragged(*prefixes))
    np.testing.assert_allclose(states, served, atol=1e-5)


@every_kind
def test_what_lies_behind_a_position_does_not_change_it(kind):
    made = tower(kind=kind)
    history = made.item_vectors[torch.arange(10)][None]
    with torch.no_grad():
        everywhere = torch.ones(1, 10, dtype=torch.bool)
        before = made(history, everywhere)
        history[:, 6:] = 0
        after = made(history, everywhere)
    assert torch.equal(before[:6], after[:6])
    assert not torch.allclose(before[6:], after[6:])


@every_kind
def test_only_the_marked_positions_are_encoded_row_by_row(kind):
    made = tower(kind=kind)
    history = made.item_vectors[torch.arange(12)].view(2, 6, DIMENSION)
    at = torch.tensor([[0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 1]], dtype=torch.bool)
    with torch.no_grad():
        every = made(history, torch.ones_like(at)).view(2, 6, DIMENSION)
        torch.testing.assert_close(made(history, at), every[at])


def test_the_bag_state_is_the_sum_over_the_root_of_the_length():
    made = tower()
    weights = made._weights(torch.tensor([2, 1, 0]), torch.tensor([3, 3, 3]))
    torch.testing.assert_close(weights[0], torch.full((3,), 3**-0.5))
    rate = 0.5 ** (1 / 2.0)  # the second decayed sum has a half-life of two events
    expected = torch.tensor([rate**2, rate, 1.0])
    torch.testing.assert_close(weights[2], expected / expected.square().sum().sqrt())


@every_kind
def test_only_the_last_events_of_a_long_history_count(kind):
    made = tower(history_length=5, kind=kind)
    long = list(range(20))
    np.testing.assert_allclose(
        made.encode_ragged(*ragged(long)), made.encode_ragged(*ragged(long[-5:])), atol=1e-6
    )


@every_kind
def test_users_of_a_batch_do_not_touch_each_other_and_an_empty_history_is_one_vector(kind):
    made = tower(kind=kind)
    histories = [[], [3, 4], [], [1], []]
    together = made.encode_ragged(*ragged(*histories))
    alone = np.concatenate([made.encode_ragged(*ragged(history)) for history in histories])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    # Up to rounding: a matrix product may sum a row in another order at another place.
    np.testing.assert_allclose(together[[2, 4]], together[[0, 0]], atol=1e-6)
    assert made.encode_ragged(np.zeros(0, np.int32), np.zeros(1, np.int64)).shape == (0, DIMENSION)


def test_the_last_coordinate_of_a_user_is_one_so_that_of_an_item_is_its_bias():
    vectors = tower().encode_ragged(*ragged([1, 2], [], [5]))
    assert vectors.dtype == np.float32 and vectors.shape == (3, DIMENSION)
    assert np.all(vectors[:, -1] == 1)


@every_kind
def test_a_saved_tower_encodes_as_before(tmp_path, kind):
    made = tower(history_length=7, kind=kind)
    made.save(tmp_path)
    history = ragged([1, 2, 3], [4])
    loaded = load_tower(tmp_path)
    assert np.array_equal(loaded.encode_ragged(*history), made.encode_ragged(*history))
    assert json.loads((tmp_path / "tower.json").read_text())["history_length"] == 7
    assert np.load(tmp_path / "item_vectors.npy").shape == (ITEMS, DIMENSION)


def test_an_item_tower_drops_ids_in_training_and_never_in_use():
    features = torch.eye(ITEMS, 4)
    items = ItemTower(features, id_dropout=0.5)
    by_features = items.project(features)
    dropped = (items() == by_features).all(dim=1)
    assert 0 < dropped.sum() < ITEMS
    items.eval()
    torch.testing.assert_close(items(), items.ids.weight + by_features)


def test_an_item_without_events_still_gets_a_vector_from_its_features():
    items = ItemTower(torch.tensor([[1.0, 0], [1, 0], [0, 1]]), id_dropout=0.999999).train()
    first, twin, other = items()
    torch.testing.assert_close(first, twin)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize("broken", ["tower.json", "tower.safetensors", "item_vectors.npy"])
def test_a_missing_file_is_an_os_error(tmp_path, broken):
    tower().save(tmp_path)
    (tmp_path / broken).unlink()
    with pytest.raises(OSError):
        UserTower.load(tmp_path)


@every_kind
def test_a_known_user_differs_from_the_history_alone_by_a_vector_of_its_own(tmp_path, kind):
    made = tower(kind=kind, users=3)
    torch.nn.init.normal_(made.user_ids.weight[1:])
    made.save(tmp_path)
    loaded = load_tower(tmp_path)
    history = ragged([1, 2], [1, 2], [1, 2])
    alone, known, other = loaded.encode_ragged(*history, np.array([-1, 0, 2]))
    np.testing.assert_allclose(alone, loaded.encode_ragged(*history)[0], atol=1e-6)
    own = made.user_ids.weight[1].detach().numpy()
    np.testing.assert_allclose((known - alone)[:-1], own, atol=1e-5)
    assert known[-1] == 1 and not np.allclose(known, other)


@every_kind
def test_a_known_user_differs_from_the_history_alone_by_a_map_of_its_features(tmp_path, kind):
    made = tower(kind=kind, users=3, user_ids=False, user_features=2)
    torch.nn.init.normal_(made.project_user.weight)
    made.user_features[1:] = torch.tensor([[1.0, 0], [0, 0], [-2, 3]])
    made.save(tmp_path)
    loaded = load_tower(tmp_path)
    assert loaded.user_ids is None
    history = ragged([1, 2], [1, 2], [1, 2], [1, 2])
    unknown, first, average, last = loaded.encode_ragged(*history, np.array([-1, 0, 1, 2]))
    alone = loaded.encode_ragged(*history)
    np.testing.assert_allclose([unknown, average], alone[:2], atol=1e-6)
    columns = made.project_user.weight.detach().numpy().T
    np.testing.assert_allclose((first - unknown)[:-1], columns[0], atol=1e-5)
    np.testing.assert_allclose((last - unknown)[:-1], -2 * columns[0] + 3 * columns[1], atol=1e-5)
    assert first[-1] == last[-1] == 1


def test_ids_and_features_of_a_user_add_up():
    made = tower(users=2, user_features=1)
    torch.nn.init.normal_(made.user_ids.weight[1:])
    torch.nn.init.normal_(made.project_user.weight)
    made.user_features[1:] = torch.tensor([[0.0], [0.5]])
    history = ragged([1, 2], [1, 2])
    own = made.encode_ragged(*history, np.array([0, 1])) - made.encode_ragged(*history)
    ids = made.user_ids.weight[1:].detach().numpy()
    expected = ids + [[0], [0.5]] * made.project_user.weight.detach().numpy().T
    np.testing.assert_allclose(own[:, :-1], expected, atol=1e-5)


@every_kind
@pytest.mark.parametrize("users", [0, 3])
def test_a_tower_saved_before_there_were_user_features_is_loaded_as_it_was(tmp_path, kind, users):
    made = tower(kind=kind, users=users)
    made.save(tmp_path)
    file = tmp_path / "tower.json"
    settings = json.loads(file.read_text())
    del settings["user_ids"], settings["user_features"]
    file.write_text(json.dumps(settings))
    loaded = load_tower(tmp_path)
    assert loaded.config == made.config
    assert loaded.state_dict().keys() == made.state_dict().keys()


def test_a_tower_without_user_ids_does_not_ask_who_it_is():
    history = ragged([1, 2], [3])
    users = np.array([0, 1])
    assert np.array_equal(tower().encode_ragged(*history, users), tower().encode_ragged(*history))


def test_an_item_without_an_id_is_placed_by_its_features():
    features = torch.eye(ITEMS, 4)
    known = torch.arange(ITEMS) != 2
    items = ItemTower(features, id_dropout=0.0, known=known).eval()
    by_features = items.project(features)
    torch.testing.assert_close(items()[2], by_features[2])
    assert not torch.allclose(items()[1], by_features[1])
