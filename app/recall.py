"""Live recall: a share of the searches is done once more, exactly, and compared.

The exact search is one product over the bundle's item vectors under the filter that the stages
share; it runs in a thread beside the request, which does not wait for it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import numpy as np

from app.domain import Candidates, Float32s, Int32s, SearchFilter
from app.metrics import Metrics
from app.models import Model
from app.ports import Retriever

DEPTH = 100


class RecallRetriever:
    """The Retriever port, with recall@100 of a sample of its searches as a metric."""

    def __init__(
        self,
        retriever: Retriever,
        current: Callable[[], Model],
        metrics: Metrics,
        *,
        share: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """share: of the searches that are repeated, 0..1. chance: gives numbers in 0..1."""
        self._retriever = retriever
        self._current = current
        self._metrics = metrics
        self._share = share
        self._chance = chance
        self._measuring: asyncio.Task[None] | None = None

    async def retrieve(
        self,
        version: str,
        vectors: Float32s,
        filters: Sequence[SearchFilter],
        limits: Sequence[int],
    ) -> Candidates:
        """See the port."""
        found = await self._retriever.retrieve(version, vectors, filters, limits)
        rows = [b for b in range(len(vectors)) if self._chance() < self._share]
        model = self._current()
        # One at a time: measuring must not pile up behind itself.
        busy = self._measuring is not None and not self._measuring.done()
        if rows and not busy and model.version == version:
            samples = [(vectors[b], filters[b], found.items[b], limits[b]) for b in rows]
            self._measuring = asyncio.create_task(self._measure(model, samples))
        return found

    async def _measure(
        self, model: Model, samples: list[tuple[Float32s, SearchFilter, Int32s, int]]
    ) -> None:
        for vector, wanted, items, limit in samples:
            recall = await asyncio.to_thread(recall_at, model, vector, wanted, items, limit)
            if recall is not None:
                self._metrics.recall(recall)


def recall_at(
    model: Model, vector: Float32s, wanted: SearchFilter, items: Int32s, limit: int
) -> float | None:
    """The share of the exact best `min(limit, DEPTH)` items that are among `items`.

    items: int32[K], what the index found, -1 = padding. None when nothing matches the filter.
    Items whose score equals that of the last exact one count as found: they may change places.
    """
    scores = model.bundle.item_vectors @ vector
    allowed = model.popular.allowed(wanted)
    matching = scores[allowed]
    depth = min(limit, DEPTH, len(matching))
    if not depth:
        return None
    least = np.partition(matching, -depth)[-depth]
    found = items[items >= 0][:depth]
    tolerance = 1e-4 * max(1.0, float(np.abs(least)))
    return float(np.count_nonzero(scores[found] >= least - tolerance) / depth)
