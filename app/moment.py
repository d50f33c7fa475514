"""The Ranker port with the last five minutes in it."""

from __future__ import annotations

from collections.abc import Callable

from app.domain import Candidates, Float32s, Histories
from app.live import Live
from app.models import Model
from app.ports import Ranker
from app.stages.moment import adjusted


class MomentRanker:
    """Another ranker's scores, adjusted by what happens just now."""

    def __init__(
        self,
        ranker: Ranker,
        live: Live,
        current: Callable[[], Model],
        *,
        trend_weight: float,
        session_weight: float,
    ) -> None:
        self._ranker = ranker
        self._live = live
        self._current = current
        self._trend_weight = trend_weight
        self._session_weight = session_weight

    async def rank(self, version: str, histories: Histories, candidates: Candidates) -> Float32s:
        """See the Ranker port."""
        scores = await self._ranker.rank(version, histories, candidates)
        model = self._current()
        if model.version != version:  # promoted meanwhile: item_idx would be another's
            return scores
        return adjusted(
            scores,
            candidates,
            histories,
            self._live.heat(model.bundle),
            model.bundle.genre_matrix,
            trend_weight=self._trend_weight,
            session_weight=self._session_weight,
        )
