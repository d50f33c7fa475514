"""From item indices to the JSON that clients read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from app.domain import Float32s, Int32s
from app.rules import Sentences
from app.stages.explain import Because
from training.model.bundle import Bundle

# Said of an item that nothing watched is like, where somebody asks for a sentence all the same.
_POPULAR = "Many people choose {item}"
_LOOKED_AT = "looked at"


class RenderStage:
    """One bundle version's catalogue as JSON fragments."""

    def __init__(self, bundle: Bundle, sentences: Sentences) -> None:
        """sentences: the texts of `why`."""
        self._sentences = sentences
        self._items = bundle.items
        self._id_field = bundle.manifest.entity.id_field
        self._shown: dict[int, dict[str, Any]] = {}
        self._verb = bundle.manifest.entity.verb

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
        return self.slates([chosen], [scores], because)[0]

    def slates(
        self, chosen: Sequence[Int32s], scores: Sequence[Float32s], because: Because | None
    ) -> list[bytes]:
        """The same of several slates; because: of their items one after the other."""
        items = list(map(self.item, np.concatenate(chosen).tolist()))
        whys = self._popular(items) if because is None else self._whys(because, items)
        shown = _rounded(np.concatenate(scores), 4)
        rows = [
            {**item, "score": score, "why": why}
            for item, score, why in zip(items, shown, whys, strict=True)
        ]
        ends = np.cumsum([len(slate) for slate in chosen]).tolist()
        return [
            orjson.dumps(rows[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)
        ]

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

    def pinned(self, title: str) -> dict[str, Any] | None:
        """The `why` of an item that a rule put there."""
        return _plain(self._sentences.pinned, title)

    def told(self, item: int, sources: list[int], looked_at: list[bool]) -> str:
        """The sentence for one item; sources: the user's items that are like it, or none;
        looked_at: of each, whether the user only looked at it."""
        items = self._items
        if not sources:
            return (self._sentences.popular or _POPULAR).format(item=items.names[item])
        return self._sentence(sources[0], items.titles[item], looked_at[0])

    def done(self, looked_at: bool) -> str:
        """What a user did with an item, in a word or two."""
        return _LOOKED_AT if looked_at else self._verb

    def _popular(self, items: list[dict[str, Any]]) -> list[dict[str, Any] | None]:
        return [_plain(self._sentences.popular, item["title"]) for item in items]

    def _whys(self, because: Because, items: list[dict[str, Any]]) -> list[dict[str, Any] | None]:
        similarities = _rounded(because.similarity, 3)
        rows = zip(
            because.item.tolist(), similarities, because.looked_at.tolist(), items, strict=True
        )
        return [
            # Nothing watched is like it: no sentence is better.
            self._why(source, similarity, looked_at, item) if similarity > 0 else None
            for source, similarity, looked_at, item in rows
        ]

    def _why(
        self, source: int, similarity: float, looked_at: bool, item: dict[str, Any]
    ) -> dict[str, Any]:
        items = self._items
        return {
            "text": self._sentence(source, item["title"], looked_at),
            "because": {self._id_field: items.ids[source], "title": items.titles[source]},
            "similarity": similarity,
        }

    def _sentence(self, source: int, title: str, looked_at: bool) -> str:
        sentence = self._sentences.looked_at if looked_at else self._sentences.watched
        return sentence.format(title=self._items.names[source], item=title, verb=self._verb)


def _plain(sentence: str | None, title: str) -> dict[str, Any] | None:
    """A `why` that names no watched item."""
    if sentence is None:
        return None
    return {"text": sentence.format(item=title), "because": None, "similarity": None}


def _rounded(values: Float32s, digits: int) -> list[float]:
    """As float64 first: a rounded float32 is no longer round when it is widened."""
    rounded: list[float] = values.astype(np.float64).round(digits).tolist()
    return rounded
