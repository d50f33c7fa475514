"""Rules that shape a ranked list into a slate, as frozen values. `app.stages.rules` applies them.

They come from a file (`MARQUEE_RULES`) and from requests; `merged` says which wins.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.domain import ItemId


@dataclass(frozen=True, slots=True)
class Boost:
    """`add` to the relevance of every item that satisfies all the conditions that are given."""

    add: float
    item_ids: tuple[ItemId, ...] = ()  # any of
    genres: tuple[str, ...] = ()  # any of
    year_from: int | None = None  # inclusive
    year_to: int | None = None  # inclusive


@dataclass(frozen=True, slots=True)
class Freshness:
    """Add weight * 0.5 ** (age / half_life_years); age counts from the catalogue's newest year."""

    weight: float
    half_life_years: float


@dataclass(frozen=True, slots=True)
class Pin:
    """An item at a position, the first being 1."""

    item_id: ItemId
    position: int


@dataclass(frozen=True, slots=True)
class Rules:
    """What happens between ranking and the slate.

    mmr_lambda: 1 orders by relevance alone, 0 by unlikeness to what is above alone; None: off.
    max_per: (attribute, most items of a slate with the same value of it).
    """

    block_ids: tuple[ItemId, ...] = ()
    block_genres: tuple[str, ...] = ()
    boosts: tuple[Boost, ...] = ()
    freshness: Freshness | None = None
    mmr_lambda: float | None = None
    max_per: tuple[tuple[str, int], ...] = ()
    pins: tuple[Pin, ...] = ()


@dataclass(frozen=True)
class Sentences:
    """The texts of `why`, with {placeholders}; None: no text.

    watched: {title} of the watched item, {item} of the recommended one, {verb}. looked_at: the
    first two, where the user only viewed or clicked it. popular, pinned: {item}.
    """

    watched: str = "Because you {verb} {title}"
    looked_at: str = "Because you looked at {title}"
    popular: str | None = None
    pinned: str | None = None


def merged(configured: Rules | None, asked: Rules | None) -> Rules | None:
    """The rules of a request on top of the configured ones; None when there are none.

    Blocks and boosts add up. A request's own MMR, freshness and cap on an attribute replace the
    configured one, its pins those of the same position or item.
    """
    if configured is None or asked is None:
        return configured or asked
    positions = {pin.position for pin in asked.pins}
    pinned = {str(pin.item_id) for pin in asked.pins}
    kept = (p for p in configured.pins if p.position not in positions)
    return Rules(
        block_ids=configured.block_ids + asked.block_ids,
        block_genres=configured.block_genres + asked.block_genres,
        boosts=configured.boosts + asked.boosts,
        freshness=configured.freshness if asked.freshness is None else asked.freshness,
        mmr_lambda=configured.mmr_lambda if asked.mmr_lambda is None else asked.mmr_lambda,
        max_per=tuple((dict(configured.max_per) | dict(asked.max_per)).items()),
        pins=tuple(p for p in kept if str(p.item_id) not in pinned) + asked.pins,
    )
