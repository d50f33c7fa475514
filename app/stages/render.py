"""From item indices to the JSON that clients read."""

from __future__ import annotations

from typing import Any

import orjson

from app.domain import Float32s, Int32s
from app.stages.explain import Because
from training.model.bundle import Bundle


class RenderStage:
    """One bundle version's catalogue as JSON fragments."""

    def __init__(self, bundle: Bundle) -> None:
        self._items = bundle.items
        self._id_field = bundle.manifest.entity.id_field
        self._verb = "watched" if bundle.manifest.entity.name == "movie" else "liked"

    def item(self, item: int) -> dict[str, Any]:
        """Id, title, genres, year and average rating (null where nobody rated it)."""
        items = self._items
        rating = items.avg_rating[item]
        return {
            self._id_field: items.ids[item],
            "title": items.titles[item],
            "genres": items.genres[item],
            "year": items.years[item],
            "avg_rating": round(float(rating), 2) if rating == rating else None,
        }

    def slate(self, chosen: Int32s, scores: Float32s, because: Because | None) -> bytes:
        """The JSON array of a slate; `why` is null where nothing watched is like the item."""
        rows = []
        for n, item in enumerate(chosen.tolist()):
            row = self.item(item)
            row["score"] = round(float(scores[n]), 4)
            row["why"] = None if because is None else self._why(because, n)
            rows.append(row)
        return orjson.dumps(rows)

    def _why(self, because: Because, n: int) -> dict[str, Any] | None:
        if because.similarity[n] <= 0:  # nothing watched is like it: no sentence is better
            return None
        source = int(because.item[n])
        items = self._items
        return {
            "text": f"Because you {self._verb} {items.names[source]}",
            "because": {self._id_field: items.ids[source], "title": items.titles[source]},
            "similarity": round(float(because.similarity[n]), 3),
        }
