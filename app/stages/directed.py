"""Slates that somebody directs: under rules, or with an account of how they came about.

The plain path does not come through here; see `Query.is_traced` and `Query.rules`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from app.domain import Float32s, Int32s, Query, SearchFilter, Slate, Strategy
from app.rules import Rules
from app.stages.explain import ExplainStage
from app.stages.history import Known
from app.stages.popular import PopularStage
from app.stages.render import RenderStage
from app.stages.rules import RulesStage, Shaped
from app.stages.trace import Trace
from training.model.bundle import Bundle

_POPULAR_POOL = 500


@dataclass(frozen=True, slots=True)
class Walk:
    """What one query met on its way.

    vector: float32[D]; None when the slate is made of popular items.
    retrieved, ranked: item_idx best first, as the index and as the ranker ordered them, with
    their scores. scored: how many of the first of `ranked` have one of the ranker's own scale.
    pool: how many of the first a slate of any length has to choose from.
    """

    query: Query
    user: Known
    wanted: SearchFilter
    vector: Float32s | None
    retrieved: Int32s
    retrieved_scores: Float32s
    ranked: Int32s
    ranked_scores: Float32s
    scored: int
    pool: int


class DirectedStage:
    """One bundle version's directed slates."""

    def __init__(
        self, bundle: Bundle, popular: PopularStage, explain: ExplainStage, render: RenderStage
    ) -> None:
        self.rules = RulesStage(bundle)
        self._bundle = bundle
        self._popular = popular
        self._explain = explain
        self._render = render

    def without_blocked(self, wanted: SearchFilter, rules: Rules) -> SearchFilter:
        """The filter that also keeps out what the rules block."""
        exclude = np.concatenate([wanted.exclude, self.rules.blocked(rules)])
        return replace(wanted, exclude=exclude.astype(np.int32))

    def popular(self, query: Query, user: Known, wanted: SearchFilter) -> Slate:
        """A slate of popular items."""
        n = max(_POPULAR_POOL, query.limit)
        items, scores = self._popular.search(wanted, n)
        walk = Walk(
            query, user, wanted, None, items, scores, items, scores, len(items), _POPULAR_POOL
        )
        return self._slate(walk)

    def personal(self, walk: Walk) -> Slate:
        """A slate from ranked candidates."""
        return self._slate(walk)

    def _slate(self, walk: Walk) -> Slate:
        query = walk.query
        rules = query.rules or Rules()
        allowed = self._popular.allowed(walk.wanted)
        items, scores = walk.ranked, walk.ranked_scores[: walk.scored]
        shaped = self.rules.shape(rules, items, scores, allowed, query.limit, walk.pool)
        if len(shaped.items) < query.limit and len(items) < int(allowed.sum()):
            items = self._whole(walk, allowed)
            shaped = self.rules.shape(rules, items, scores, allowed, query.limit, walk.pool)
        score_of = dict(zip(walk.ranked.tolist(), walk.ranked_scores.tolist(), strict=True))
        shown = np.array([score_of.get(i, np.nan) for i in shaped.items.tolist()], np.float32)
        personal = walk.vector is not None
        user = walk.user
        because = (
            self._explain.because([shaped.items], [user.history], [user.looked_at])
            if personal
            else None
        )
        body = self._render.slate(shaped.items, shown, because)
        body = self._with_pins(body, shaped)
        strategy = Strategy.PERSONAL if personal else Strategy.POPULAR
        slate = Slate(body, strategy, self._bundle.version)
        return self._traced(slate, walk, shaped, items, allowed) if query.is_traced else slate

    def _with_pins(self, body: bytes, shaped: Shaped) -> bytes:
        """A pinned item says so instead, when there is a sentence for it."""
        if not shaped.pinned or self._render.pinned("") is None:
            return body
        rows: list[dict[str, Any]] = orjson.loads(body)
        for row, item in zip(rows, shaped.items.tolist(), strict=True):
            if item in shaped.pinned:
                row["why"] = self._render.pinned(row["title"])
        return orjson.dumps(rows)

    def _whole(self, walk: Walk, allowed: npt.NDArray[np.bool_]) -> Int32s:
        """The candidates, and behind them everything else that is allowed.

        Rules refused so many candidates that the rest of the catalogue is asked, by exact score.
        """
        others = allowed.copy()
        others[walk.ranked] = False
        behind = np.flatnonzero(others).astype(np.int32)
        behind = behind[np.argsort(-self._exact(walk)[behind], kind="stable")]
        return np.concatenate([walk.ranked, behind])

    def _exact(self, walk: Walk) -> Float32s:
        """float32[I]: what the first stage is an approximation of."""
        if walk.vector is None:
            return self._bundle.popularity_score
        scores: Float32s = self._bundle.item_vectors @ walk.vector
        return scores

    def _traced(
        self,
        slate: Slate,
        walk: Walk,
        shaped: Shaped,
        items: Int32s,
        allowed: npt.NDArray[np.bool_],
    ) -> Slate:
        trace = Trace(self._bundle, walk, shaped, items)
        if walk.query.explain:
            rows: list[dict[str, Any]] = orjson.loads(slate.recommendations)
            for row, item in zip(rows, shaped.items.tolist(), strict=True):
                row["explain"] = trace.of(item)
            slate = replace(slate, recommendations=orjson.dumps(rows))
        if walk.query.explain_item is not None:
            story = trace.absence(walk.query.explain_item, self._exact(walk), allowed)
            slate = replace(slate, explained=orjson.dumps(story))
        return slate
