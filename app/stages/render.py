"""From item indices to the JSON that clients read."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from app.domain import Float32s, Int32s
from app.stages.explain import Because
from training.model.bundle import Bundle


class RenderStage:
    """One bundle version's catalogue as JSON fragments."""

    def __init__(self, bundle: Bundle) -> None:
        self._items = bundle.items
        self._id_field = bundle.manifest.entity.id_field
        self._shown: dict[int, dict[str, Any]] = {}
        self._verb = "watched" if bundle.manifest.entity.name == "movie" else "liked"

    def item(self, item: int) -> dict[str, Any]:
        """Id, title, genres, year and average rating (null where nobody rated it).

        The same dictionary each time: copy it before changing it.
        """
        shown = self._shown.get(item)
        if shown is None:
            shown = self._shown[item] = self._show(item)
        return shown

    def slate(self, chosen: Int32s, scores: Float32s, because: Because | None) -> bytes:
        """The JSON array of a slate; `why` is null where nothing watched is like the item."""
        items = map(self.item, chosen.tolist())
        whys = [None] * len(chosen) if because is None else self._whys(because)
        rows = [
            {**item, "score": score, "why": why}
            for item, score, why in zip(items, _rounded(scores, 4), whys, strict=True)
        ]
        return orjson.dumps(rows)

    def _show(self, item: int) -> dict[str, Any]:
        items = self._items
        rating = float(items.avg_rating[item])
        return {
            self._id_field: items.ids[item],
            "title": items.titles[item],
            "genres": items.genres[item],
            "year": items.years[item],
            "avg_rating": round(rating, 2) if rating == rating else None,
        }

    def _whys(self, because: Because) -> list[dict[str, Any] | None]:
        similarities = _rounded(because.similarity, 3)
        return [
            # Nothing watched is like it: no sentence is better.
            self._why(source, similarity) if similarity > 0 else None
            for source, similarity in zip(because.item.tolist(), similarities, strict=True)
        ]

    def _why(self, source: int, similarity: float) -> dict[str, Any]:
        items = self._items
        return {
            "text": f"Because you {self._verb} {items.names[source]}",
            "because": {self._id_field: items.ids[source], "title": items.titles[source]},
            "similarity": similarity,
        }


def _rounded(values: Float32s, digits: int) -> list[float]:
    """As float64 first: a rounded float32 is no longer round when it is widened."""
    rounded: list[float] = values.astype(np.float64).round(digits).tolist()
    return rounded
