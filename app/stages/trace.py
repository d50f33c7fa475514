"""The account of a slate: how an item got its place, and why another has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from app.domain import Float32s, Int32s, ItemId, SearchFilter
from app.stages.rules import Shaped
from training.model.bundle import Bundle

if TYPE_CHECKING:
    from app.stages.directed import Walk


class Trace:
    """What is known of one walk."""

    def __init__(self, bundle: Bundle, walk: Walk, shaped: Shaped, items: Int32s) -> None:
        """items: all that the rules chose from, best first."""
        self._bundle = bundle
        self._walk = walk
        self._shaped = shaped
        self._retrieved = _places(walk.retrieved)
        self._ranked = _places(walk.ranked[: walk.scored])
        self._before = _places(items)
        self._slate = _places(shaped.items)

    def of(self, item: int) -> dict[str, Any]:
        """Source, scores, places and rules of an item; places count from 1.

        `retrieved` and `ranked` are null for what the stage did not have; `before_rules` is the
        place in the list that the rules were applied to, and what is not in it has no source.
        """
        walk, shaped = self._walk, self._shaped
        first, second = self._retrieved.get(item), self._ranked.get(item)
        return {
            "source": self._source(item),
            "scores": {
                "retrieved": None if first is None else float(walk.retrieved_scores[first]),
                "ranked": None if second is None else float(walk.ranked_scores[second]),
                "relevance": shaped.relevance.get(item),
            },
            "places": {
                "retrieved": _from_1(first),
                "ranked": _from_1(second),
                "before_rules": _from_1(self._before.get(item)),
                "final": _from_1(self._slate.get(item)),
            },
            "rules": self._rules(item),
        }

    def _source(self, item: int) -> str | None:
        if item in self._shaped.pinned:
            return "pin"
        if item not in self._before:
            return None
        return "popular" if self._walk.vector is None else "tower"

    def _rules(self, item: int) -> list[str]:
        applied = list(self._shaped.added.get(item, ()))
        if item in self._shaped.pinned:
            applied.append("pin")
        elif item in self._before and self._has_mmr():
            applied.append("mmr")
        return applied

    def _has_mmr(self) -> bool:
        rules = self._walk.query.rules
        return rules is not None and rules.mmr_lambda is not None

    def absence(
        self, item_id: ItemId, exact: Float32s, allowed: npt.NDArray[np.bool_]
    ) -> dict[str, Any]:
        """Why an item is not in the slate, or that it is.

        exact: float32[I] scores of the first stage without approximation; the item's place by
        them counts among the items that are allowed, and is null for one that is not.
        """
        item = self._bundle.item_index(item_id)
        story: dict[str, Any] = {"item_id": item_id, "in_slate": item in self._slate}
        if item < 0:
            return story | _because("unknown_item", "the catalogue does not have it")
        story["explain"] = self.of(item)
        story["exact_score"] = float(exact[item])
        higher = int((exact[allowed] > exact[item]).sum())
        story["exact_place"] = 1 + higher if allowed[item] else None
        story["of_items"] = int(allowed.sum())
        if item in self._slate:
            return story | _because("in_slate", "it is in the slate")
        return story | self._reason(item, higher)

    def _reason(self, item: int, higher: int) -> dict[str, str]:
        walk = self._walk
        excluded = self._excluded(item)
        if excluded is not None:
            return excluded
        if (condition := self._filter(item, walk.wanted)) is not None:
            return _because("filtered", f"it does not satisfy filters.{condition}")
        if (full := self._shaped.capped.get(item)) is not None:
            return _because("capped", f"the slate is full of {full[0]} {full[1]}")
        if item not in self._before:
            found = len(walk.retrieved)
            return _because(
                "not_retrieved",
                f"{higher} allowed items score higher; the first stage kept {found}",
            )
        place = self._before[item] + 1
        return _because(
            "below_the_cut",
            f"place {place} before rules, and the slate has {len(self._slate)} places",
        )

    def _excluded(self, item: int) -> dict[str, str] | None:
        walk = self._walk
        if any(self._bundle.item_index(i) == item for i in walk.query.exclude_ids):
            return _because("excluded", "exclude_ids names it")
        if item in walk.user.excluded:
            if item in walk.user.history:
                return _because("watched", "the user has watched it, and exclude_watched holds")
            return _because("disliked", "the user said that it is not for them")
        if item in walk.wanted.exclude:
            return _because("blocked", "a rule blocks it")
        return None

    def _filter(self, item: int, wanted: SearchFilter) -> str | None:
        """The first condition that the item fails."""
        items = self._bundle.items
        if wanted.genres and not set(wanted.genres) & set(items.genres[item]):
            return "genres"
        rating = items.avg_rating[item]
        if wanted.min_rating is not None and not rating >= np.float32(wanted.min_rating):
            return "min_rating"
        year = items.years[item]
        low, high = wanted.year_from, wanted.year_to
        if (low is not None and (year is None or year < low)) or (
            high is not None and (year is None or year > high)
        ):
            return "years"
        return None


def _places(items: Int32s) -> dict[int, int]:
    return {item: n for n, item in enumerate(items.tolist())}


def _from_1(place: int | None) -> int | None:
    return None if place is None else place + 1


def _because(reason: str, detail: str) -> dict[str, str]:
    return {"reason": reason, "detail": detail}
