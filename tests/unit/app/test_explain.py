"""Which items are alike, by who has them and, behind that, by the vectors."""

from dataclasses import replace

import numpy as np
import pytest

from app.stages.explain import ExplainStage
from tests.bundles import tiny_bundle
from training.model.bundle import Bundle
from training.neighbours import neighbours

COLD = 5


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Nobody has item COLD."""
    whole = Bundle.open(tiny_bundle(tmp_path_factory.mktemp("explain") / "1"))
    history = np.where(whole.user_history == COLD, 6, whole.user_history)
    near, weight = neighbours(history, whole.user_offsets, len(whole.items))
    return replace(whole, neighbours=near, neighbour_weights=weight)


@pytest.fixture(scope="module")
def stage(bundle):
    return ExplainStage(bundle)


def earlier(bundle):
    """What an earlier release would have published."""
    nobody = np.empty((len(bundle.items), 0))
    return replace(
        bundle,
        neighbours=nobody.astype(np.int32),
        neighbour_weights=nobody.astype(np.float32),
    )


def cosines(bundle, item):
    unit = bundle.item_vectors[:, :-1]
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    return unit @ unit[item]


def test_the_first_neighbours_are_those_who_share_most_users(bundle, stage):
    for item in (0, 7, 59):
        n = int((bundle.neighbour_weights[item] > 0).sum())
        assert 0 < n < 59
        for limit in (1, n, n + 3, 59):
            found, similarity = stage.neighbours(item, limit)
            shared = min(n, limit)
            assert found[:shared].tolist() == bundle.neighbours[item, :shared].tolist()
            assert similarity[:shared].tolist() == bundle.neighbour_weights[item, :shared].tolist()


@pytest.mark.parametrize("limit", [1, 20, 59, 100])
def test_there_are_as_many_as_were_asked_for_in_falling_order(stage, limit):
    for item in range(60):
        found, similarity = stage.neighbours(item, limit)
        assert len(set(found.tolist()) - {item}) == len(similarity) == min(limit, 59)
        assert (np.diff(similarity) <= 0).all()


def test_behind_the_neighbours_come_the_vectors_below_the_last_neighbour(bundle, stage):
    item = 7
    weight = bundle.neighbour_weights[item]
    last = weight[weight > 0].min()
    found, similarity = stage.neighbours(item, 59)
    behind = found[(weight > 0).sum() :]
    expected = cosines(bundle, item)[behind]
    np.testing.assert_allclose(similarity[-len(behind) :], expected * last, atol=1e-6)


def test_an_item_that_nobody_has_is_like_what_its_vector_is_like(bundle, stage):
    cosine = cosines(bundle, COLD)
    cosine[COLD] = -2
    found, similarity = stage.neighbours(COLD, 10)
    assert found.tolist() == np.argsort(-cosine)[:10].tolist()
    np.testing.assert_allclose(similarity, cosine[found], atol=1e-6)


def test_a_bundle_of_an_earlier_release_has_its_vectors_alone(bundle):
    stage = ExplainStage(earlier(bundle))
    history = np.arange(10, 30, dtype=np.int32)
    for item in (0, COLD):
        cosine = cosines(bundle, item)
        cosine[item] = -2
        found, _ = stage.neighbours(item, 10)
        assert found.tolist() == np.argsort(-cosine)[:10].tolist()
        because = stage.because([np.array([item], np.int32)], [history])
        assert because.item.tolist() == [history[cosine[history].argmax()]]


def test_the_reason_of_a_slate_is_the_nearest_of_the_history(bundle, stage):
    rng = np.random.default_rng(0)
    for _ in range(50):
        both = rng.permutation(60).astype(np.int32)
        slate, history = both[:10], both[10 : 11 + rng.integers(40)]
        because = stage.because([slate], [history])
        for item, source, similarity in zip(slate, because.item, because.similarity, strict=True):
            nearest, similarities = stage.nearest(int(item), history, 1)
            if len(nearest):
                assert (source, similarity) == (nearest[0], pytest.approx(similarities[0]))
            else:  # nothing is like it, and the slate does not say why
                assert similarity <= 0


def test_a_shared_audience_goes_before_the_nearest_vector(bundle, stage):
    item = 7
    apart = np.flatnonzero(~np.isin(np.arange(60), [item, *bundle.neighbours[item]]))
    shared = bundle.neighbours[item, 0]
    alike = apart[cosines(bundle, item)[apart].argmax()]
    history = np.array([alike, shared, alike], np.int32)
    assert stage.because([np.array([item], np.int32)], [history]).item.tolist() == [shared]
    assert stage.nearest(item, history, 3)[0].tolist()[:2] == [shared, alike]


def test_only_the_last_hundred_events_are_looked_at(bundle, stage):
    item, shared = 7, bundle.neighbours[7, 0]
    apart = np.flatnonzero(~np.isin(np.arange(60), [item, *bundle.neighbours[item]]))
    history = np.append(shared, np.resize(apart, 100)).astype(np.int32)
    assert stage.because([np.array([item], np.int32)], [history]).item[0] != shared


def test_an_empty_history_explains_nothing(stage):
    with pytest.raises(ValueError, match="empty history"):
        stage.because([np.array([1], np.int32)], [np.empty(0, np.int32)])
