import json

import numpy as np
import pytest
import torch

from training.model.blend import BlendedTower, load_tower
from training.model.linear_tower import LinearTower
from training.model.two_tower import DIMENSION, TowerConfig, UserTower

ITEMS, RANK = 30, 7


def ragged(*histories):
    offsets = np.cumsum([0, *map(len, histories)])
    return np.array([item for history in histories for item in history], np.int32), offsets


def linear(seed=0):
    numbers = torch.Generator().manual_seed(seed)
    return LinearTower(*torch.randn(2, ITEMS, RANK, generator=numbers))


def blended(seed=0):
    torch.manual_seed(seed)
    learned = UserTower(TowerConfig(history_length=20, hidden=16)).eval()
    learned.item_vectors = torch.randn(ITEMS, DIMENSION)
    mix = torch.randn(DIMENSION - 1 + RANK, DIMENSION - 1)
    return BlendedTower([learned, linear()], mix, torch.randn(ITEMS, DIMENSION))


def test_a_linear_user_vector_is_the_sum_of_the_histories_input_vectors():
    tower = linear()
    vectors = tower.encode_ragged(*ragged([3, 5], [], [7]))
    assert vectors.dtype == np.float32
    inputs = tower.input_vectors.numpy()
    expected = [inputs[3] + inputs[5], np.zeros(RANK), inputs[7]]
    np.testing.assert_allclose(vectors, expected, rtol=1e-6)


def test_a_blended_user_vector_mixes_the_parts_and_ends_in_the_coordinate_of_biases():
    tower = blended()
    learned, other = tower.parts
    histories = ragged([1, 2, 3], [4])
    together = np.concatenate(
        [learned.encode_ragged(*histories)[:, :-1], other.encode_ragged(*histories)], axis=1
    )
    vectors = tower.encode_ragged(*histories)
    assert vectors.shape == (2, DIMENSION)
    np.testing.assert_allclose(vectors[:, :-1], together @ tower.mix.numpy(), rtol=1e-5)
    assert (vectors[:, -1] == 1).all()


@pytest.mark.parametrize("make", [linear, blended])
def test_a_saved_tower_is_loaded_as_what_it_was(make, tmp_path):
    made = make()
    made.save(tmp_path)
    loaded = load_tower(tmp_path)
    assert type(loaded) is type(made)
    histories = ragged([1, 2, 2], [9, 0])
    assert np.array_equal(loaded.encode_ragged(*histories), made.encode_ragged(*histories))
    assert torch.equal(loaded.item_vectors, made.item_vectors)
    assert np.array_equal(np.load(tmp_path / "item_vectors.npy"), made.item_vectors.numpy())


def test_a_blend_still_knows_its_users_when_it_is_loaded(tmp_path):
    tower = blended()
    learned = UserTower(TowerConfig(hidden=16, users=2, user_features=3)).eval()
    learned.item_vectors = tower.parts[0].item_vectors
    torch.nn.init.normal_(learned.project_user.weight)
    learned.user_features[1:] = torch.randn(2, 3)
    tower.parts = (learned, linear())
    tower.save(tmp_path)
    histories, users = ragged([1, 2], [1, 2], [1, 2]), np.array([0, 1, -1])
    vectors = load_tower(tmp_path).encode_ragged(*histories, users)
    assert np.array_equal(vectors, tower.encode_ragged(*histories, users))
    assert len(np.unique(vectors, axis=0)) == 3


def test_a_blend_with_a_part_missing_is_not_loaded(tmp_path):
    blended().save(tmp_path)
    settings = json.loads((tmp_path / "tower.json").read_text())
    (tmp_path / "tower.json").write_text(json.dumps({**settings, "parts": 3}))
    with pytest.raises(OSError, match="parts/2"):
        load_tower(tmp_path)
