"""The two steps of the online path in one call."""

from __future__ import annotations

from collections.abc import Sequence

from app.domain import Query, Slate
from app.pipeline import Recommender


async def recommended(recommender: Recommender, queries: Sequence[Query]) -> list[Slate]:
    """The slates of the queries, in order; those that the cache lacks are computed together."""
    found = await recommender.look_up(queries)
    misses = [found_or_miss for found_or_miss in found if not isinstance(found_or_miss, Slate)]
    computed = iter(await recommender.compute(misses) if misses else ())
    return [slate if isinstance(slate, Slate) else next(computed) for slate in found]
