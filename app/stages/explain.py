"""Which items are alike: for `/similar`, and for why an item is in a slate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.domain import Float32s, Int32s
from training.model.bundle import Bundle

# Looking further back names films people have forgotten, and costs time on every request.
_LOOK_BACK_EVENTS = 100


@dataclass(frozen=True, slots=True)
class Because:
    """item: int32[N] item_idx of the nearest item of the user's; similarity: float32[N], at most
    1; looked_at: bool[N], whether the user only looked at it; for each of the N items of the slates
    asked about."""

    item: Int32s
    similarity: Float32s
    looked_at: npt.NDArray[np.bool_]


class ExplainStage:
    """Item-to-item similarity in one bundle version.

    Two items are as similar as the bundle's neighbours say: by how many users have both. What is
    not among an item's neighbours is behind them: as the cosine of the vectors says, times the
    weight of the last neighbour, which it cannot exceed. An item without neighbours, being new
    or of an older bundle, has the cosines as they are.
    """

    def __init__(self, bundle: Bundle) -> None:
        # The last coordinate is the item's bias, which says nothing of likeness.
        directions = bundle.item_vectors[:, :-1]
        norms = np.linalg.norm(directions, axis=1, keepdims=True)
        self._unit = (directions / np.maximum(norms, 1e-9)).astype(np.float32)
        self._near, self._weight = bundle.neighbours, bundle.neighbour_weights
        self._beyond = self._weight.min(axis=1, initial=1, where=self._weight > 0)

    def because(
        self,
        slates: Sequence[Int32s],
        histories: Sequence[Int32s],
        looked_at: Sequence[frozenset[int]] = (),
    ) -> Because:
        """For each item of each user's slate the most similar of the last events of that user's
        history; the slates one after the other.

        looked_at: what of each history the user only looked at; empty: nothing of any.
        Raises ValueError for an empty history: there is nothing to name.
        """
        if not all(map(len, histories)):
            raise ValueError("an empty history explains nothing")
        recent = [history[-_LOOK_BACK_EVENTS:] for history in histories]
        ends = np.cumsum([len(slate) for slate in slates]).tolist()
        slots = list(zip([0, *ends[:-1]], ends, recent, strict=True))
        flat = np.concatenate(slates)
        near = self._near.take(flat, axis=0)
        item = np.zeros(len(flat), np.int32)
        similarity = np.zeros(len(flat), np.float32)
        met = np.zeros(len(flat), bool)
        if near.size:
            known = np.empty(near.shape, bool)
            watched = np.zeros(len(self._unit) + 1, bool)  # the last: no neighbour
            for start, end, events in slots:
                watched[events] = True
                watched.take(near[start:end], out=known[start:end])
                watched[events] = False
            # The strongest: neighbours are in order.
            place = np.arange(len(flat)), known.argmax(axis=1)
            met, item, similarity = known[place], near[place], self._weight[flat, place[1]]
        if not met.all():
            for start, end, events in slots:
                alone = start + np.flatnonzero(~met[start:end])
                if len(alone):
                    item[alone], similarity[alone] = self._behind(flat[alone], events)
        only = np.zeros(len(flat), bool)
        if any(looked_at):
            for (start, end, _), few in zip(slots, looked_at, strict=True):
                only[start:end] = np.isin(item[start:end], list(few))
        return Because(item, similarity, only)

    def nearest(self, item: int, history: Int32s, k: int) -> tuple[Int32s, Float32s]:
        """At most k different items of the history's last events, most like `item` first, and
        their similarities; only those that are like it at all."""
        recent = np.unique(history[-_LOOK_BACK_EVENTS:]).astype(np.int32)
        recent = recent[recent != item]
        similarity = self._similarity(item, recent)
        best = np.argsort(-similarity, kind="stable")[:k]
        best = best[similarity[best] > 0]
        return recent[best], similarity[best]

    def neighbours(self, item: int, limit: int) -> tuple[Int32s, Float32s]:
        """The `limit` items most similar to `item`, itself excepted, best first.

        Exact. Where the item has fewer neighbours, one pass over the catalogue, about 3 ms for
        62,000 items.
        """
        limit = min(limit, len(self._unit) - 1)
        weight = self._weight[item, :limit]
        if np.count_nonzero(weight) == limit:
            return self._near[item, :limit], weight
        similarity = self._similarity(item, slice(None))
        similarity[item] = -np.inf
        best = np.sort(np.argpartition(-similarity, limit - 1)[:limit])
        best = best[np.argsort(-similarity[best], kind="stable")]
        return best.astype(np.int32), similarity[best]

    def _similarity(self, item: int, others: Int32s | slice) -> Float32s:
        """How similar `others` are to the item; slice(None): every item of the catalogue."""
        weight = np.zeros(len(self._unit) + 1, np.float32)
        weight[self._near[item]] = self._weight[item]
        known = weight[:-1][others]
        behind = self._unit[others] @ self._unit[item] * self._beyond[item]
        similarity: Float32s = np.where(known > 0, known, behind)
        return similarity

    def _behind(self, slate: Int32s, recent: Int32s) -> tuple[Int32s, Float32s]:
        """The same by the vectors, for items that have none of `recent` among their neighbours."""
        cosine = self._unit.take(slate, axis=0) @ self._unit.take(recent, axis=0).T
        best = cosine.argmax(axis=1)
        similarity = cosine[np.arange(len(slate)), best] * self._beyond.take(slate)
        return recent.take(best), similarity
