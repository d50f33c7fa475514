"""Live recall: what it measures, and what it leaves alone."""

import numpy as np
import pytest

from app.domain import Candidates, SearchFilter
from app.recall import RecallRetriever, recall_at


def best(model, vector, wanted, limit):
    scores = model.bundle.item_vectors @ vector
    scores[~model.popular.allowed(wanted)] = -np.inf
    order = np.argsort(-scores, kind="stable")
    return order[np.isfinite(scores[order])][:limit].astype(np.int32)


@pytest.fixture
def vector(bundle):
    return np.random.default_rng(0).normal(size=bundle.item_vectors.shape[1]).astype(np.float32)


@pytest.mark.parametrize(
    "wanted", [SearchFilter(), SearchFilter(genres=("Drama",), year_from=1990)]
)
def test_recall_is_the_share_of_the_exact_best_that_was_found(world, vector, wanted):
    exact = best(world.model, vector, wanted, 10)
    assert recall_at(world.model, vector, wanted, exact, 10) == 1
    missing = exact.copy()
    missing[:5] = best(world.model, vector, SearchFilter(), 60)[-5:]
    assert recall_at(world.model, vector, wanted, missing, 10) == 0.5


def test_a_filter_that_nothing_passes_is_not_measured(world, vector):
    assert recall_at(world.model, vector, SearchFilter(year_from=3000), vector[:0], 10) is None


async def test_the_asked_share_of_searches_is_measured_and_none_is_changed(world, bundle, vector):
    half = Candidates(np.array([[1, -1], [2, -1]], np.int32), np.zeros((2, 2), np.float32))

    class Index:
        async def retrieve(self, *_):
            return half

    draws = iter([0.05, 0.5])
    retriever = RecallRetriever(
        Index(), lambda: world.model, world.metrics, share=0.1, chance=lambda: next(draws)
    )
    asked = [SearchFilter()] * 2
    found = await retriever.retrieve(bundle.version, np.stack([vector] * 2), asked, [2, 2])
    assert found is half
    await retriever._measuring
    assert "marquee_ann_recall_count 1.0" in world.metrics.exposition().decode()
