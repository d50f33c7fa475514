"""Shapes a ranked list into a slate: boosts, then diversity under caps, then pins.

Blocked items never get this far: they are kept out of the search, so that a slate is as long as
asked whenever the catalogue has it. Relevance is the ranked score scaled to 0 (last of those that
were ranked) to 1 (first), and below 0 behind them; boosts and freshness add to it. An item that a
cap refuses makes room for the next.
Pins are an editor's word: they need not be candidates, they count towards the caps and are not
refused by them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from app.domain import Float32s, Int32s, ItemId
from app.errors import NotFound
from app.rules import Boost, Pin, Rules
from training.model.bundle import Bundle

# MMR compares with every item above: it reorders this many places within this many candidates.
_MMR_PLACES = 100
_MMR_POOL = 500

Values = tuple[tuple[str, Hashable], ...]


@dataclass(slots=True)
class Shaped:
    """items int32[N] in slate order; position in the ranked list by item (a pin may have none).

    relevance: with boosts and freshness, by item. added: what each boost gave, by item.
    pinned: items at a pin's position. capped: refused item -> the (attribute, value) that was full.
    """

    items: Int32s
    relevance: dict[int, float] = field(default_factory=dict)
    added: dict[int, list[str]] = field(default_factory=dict)
    pinned: set[int] = field(default_factory=set)
    capped: dict[int, tuple[str, Hashable]] = field(default_factory=dict)


class RulesStage:
    """One bundle version's catalogue as the rules see it."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        items = bundle.items
        self._genre_column = {name: g for g, name in enumerate(bundle.manifest.genres)}
        self._year = np.array([np.nan if y is None else y for y in items.years], np.float64)
        self._newest = float(np.nanmax(self._year)) if not np.isnan(self._year).all() else 0.0
        # The last coordinate is the item's bias, which says nothing of likeness.
        self._directions = bundle.item_vectors[:, :-1]
        self._file = bundle.path / "items.parquet"
        schema = pq.read_schema(self._file)
        self._countable = [column.name for column in schema if _countable(column.type)]
        self._columns: dict[str, list[object]] = {
            "genre": list(items.genres),
            "decade": [None if y is None else y // 10 * 10 for y in items.years],
        }

    def check(self, rules: Rules) -> None:
        """Raises NotFound for genres, caps and pinned items that the catalogue does not have.

        For requests: in a rules file what this version does not have has no effect.
        """
        for where, what in self._missing(rules):
            raise NotFound(f"rules.{where}: {what}", field=f"rules.{where}")

    def without_effect(self, rules: Rules) -> list[str]:
        """What of a rules file the catalogue does not have: "<where>: <what>", items too."""
        named = {"block.item_ids": rules.block_ids}
        for n, boost in enumerate(rules.boosts):
            named[f"boost.{n}.item_ids"] = boost.item_ids
        missing = [*self._missing(rules), *self._missing_items(named)]
        return [f"{where}: {what}" for where, what in missing]

    def _missing(self, rules: Rules) -> Iterator[tuple[str, str]]:
        """(where, what) of caps, genres and pinned items that the catalogue does not have."""
        for attribute, _ in rules.max_per:
            if self._column(attribute) is None:
                known = ", ".join(sorted({"genre", "decade", *self._countable}))
                yield "diversity.max_per", f"cannot count by {attribute!r}; there are {known}"
        asked = {"block.genres": rules.block_genres}
        for n, boost in enumerate(rules.boosts):
            asked[f"boost.{n}.genres"] = boost.genres
        for where, genres in asked.items():
            for genre in genres:
                if genre not in self._genre_column:
                    yield where, f"unknown genre {genre!r}"
        yield from self._missing_items(
            {f"pin.{n}.item_id": (pin.item_id,) for n, pin in enumerate(rules.pins)}
        )

    def _missing_items(self, named: Mapping[str, tuple[ItemId, ...]]) -> Iterator[tuple[str, str]]:
        name = self._bundle.manifest.entity.name
        for where, item_ids in named.items():
            for item_id in item_ids:
                if self._bundle.item_index(item_id) < 0:
                    yield where, f"{name} {item_id!r} is not in the catalogue"

    def blocked(self, rules: Rules) -> Int32s:
        """item_idx that the rules block."""
        ids = [i for item_id in rules.block_ids if (i := self._bundle.item_index(item_id)) >= 0]
        return np.concatenate(
            [np.array(ids, np.int32), np.flatnonzero(self._has_genre(rules.block_genres))]
        ).astype(np.int32)

    def shape(
        self,
        rules: Rules,
        items: Int32s,
        scores: Float32s,
        allowed: npt.NDArray[np.bool_],
        n: int,
        pool: int,
    ) -> Shaped:
        """At most n of the items, each once.

        items int32[K], best first; scores float32[<=K] of the first of them: those without a
        score come after them, at a relevance from 0 down to -1. allowed bool[I]: what may be
        pinned. The first `pool` items go before all others, which only a longer slate needs: so
        its first `pool` places are a shorter one's, but for pins behind the shorter one's end.
        """
        pins = self._pins(rules.pins, allowed, n)
        counts = Counter(value for item in pins.values() for value in self._values(item, rules))
        free = ~np.isin(items, list(pins.values()))
        shaped = Shaped(np.empty(0, np.int32), pinned=set(pins.values()))
        relevance = self._relevance(rules, items, scores[:pool], shaped)
        order = np.flatnonzero(free)
        order = order[np.lexsort((-relevance[order], order >= pool))]
        queue = self._queue(rules, items, relevance, order, pool)
        chosen = self._choose(rules, items, queue, n - len(pins), counts, shaped)
        shaped.items = _place(pins, chosen, n)
        return shaped

    def _pins(
        self, pins: tuple[Pin, ...], allowed: npt.NDArray[np.bool_], n: int
    ) -> dict[int, int]:
        """position -> item_idx of the pins that can be placed.

        Of two pins of an item the later holds, and so it does of two items at a place.
        """
        position_of: dict[int, int] = {}
        for pin in pins:
            item = self._bundle.item_index(pin.item_id)
            if item >= 0 and allowed[item]:
                position_of.pop(item, None)  # so that the dict's order is that of the later pins
                position_of[item] = pin.position
        return {position: item for item, position in position_of.items() if position <= n}

    def _relevance(
        self, rules: Rules, items: Int32s, scores: Float32s, shaped: Shaped
    ) -> npt.NDArray[np.float64]:
        low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 0.0)
        scaled = (scores.astype(np.float64) - low) / ((high - low) or 1.0)
        # By the place alone: how many more there are must not move those in front.
        places = np.arange(len(scores) + 1, len(items) + 1)
        relevance = np.concatenate([scaled, len(scores) / places - 1])
        for boost in rules.boosts:
            hit = self._matches(boost)[items]
            relevance[hit] += boost.add
            for item in items[hit].tolist():
                shaped.added.setdefault(item, []).append(f"boost {boost.add:+g}")
        if rules.freshness is not None:
            age = self._newest - self._year[items]
            fresh = rules.freshness.weight * 0.5 ** (age / rules.freshness.half_life_years)
            fresh = np.nan_to_num(fresh, nan=0.0)
            relevance += fresh
            for item, gain in zip(items.tolist(), fresh.tolist(), strict=True):
                if gain:
                    shaped.added.setdefault(item, []).append(f"freshness {gain:+.4f}")
        shaped.relevance = dict(zip(items.tolist(), relevance.tolist(), strict=True))
        return relevance

    def _choose(
        self,
        rules: Rules,
        items: Int32s,
        queue: _Queue,
        places: int,
        counts: Counter[tuple[str, Hashable]],
        shaped: Shaped,
    ) -> list[int]:
        """Items for the places that no pin takes, best first, under the caps."""
        caps = dict(rules.max_per)
        chosen: list[int] = []
        while len(chosen) < places and (at := queue.next()) is not None:
            item = int(items[at])
            values = self._values(item, rules)
            full = next((value for value in values if counts[value] >= caps[value[0]]), None)
            if full is not None:
                shaped.capped[item] = full
                continue
            counts.update(values)
            chosen.append(item)
            queue.took(at)
        return chosen

    def _queue(
        self,
        rules: Rules,
        items: Int32s,
        relevance: npt.NDArray[np.float64],
        order: npt.NDArray[np.int64],
        pool: int,
    ) -> _Queue:
        if rules.mmr_lambda is None:
            return _Queue(self._unit(items[:0]), relevance, order, 0, 0.0)
        compared = min(_MMR_POOL, int((order < pool).sum()))
        return _Queue(self._unit(items), relevance, order, compared, rules.mmr_lambda)

    def _values(self, item: int, rules: Rules) -> Values:
        """(attribute, value) of everything about the item that a cap counts."""
        found: list[tuple[str, Hashable]] = []
        for attribute, _ in rules.max_per:
            column = self._column(attribute)
            value = None if column is None else column[item]
            each = value if isinstance(value, list) else [] if value is None else [value]
            found += [(attribute, one) for one in each]
        return tuple(found)

    def _column(self, attribute: str) -> list[object] | None:
        """Values by item_idx; None for what cannot be counted by."""
        if attribute not in self._columns and attribute in self._countable:
            table = pq.read_table(self._file, columns=[attribute])
            self._columns[attribute] = table[attribute].to_pylist()
        return self._columns.get(attribute)

    def _matches(self, boost: Boost) -> npt.NDArray[np.bool_]:
        """bool[I]: items that satisfy the boost's conditions."""
        hit: npt.NDArray[np.bool_] = np.ones(len(self._bundle.items), bool)
        if boost.item_ids:
            named = [self._bundle.item_index(item_id) for item_id in boost.item_ids]
            hit &= np.isin(np.arange(len(hit)), [item for item in named if item >= 0])
        if boost.genres:
            hit &= self._has_genre(boost.genres)
        if boost.year_from is not None:
            hit &= self._year >= boost.year_from
        if boost.year_to is not None:
            hit &= self._year <= boost.year_to
        return hit

    def _has_genre(self, genres: tuple[str, ...]) -> npt.NDArray[np.bool_]:
        columns = [self._genre_column[g] for g in genres if g in self._genre_column]
        return np.asarray((self._bundle.genre_matrix[:, columns] > 0).any(axis=1))

    def _unit(self, items: Int32s) -> Float32s:
        directions = self._directions[items]
        norms = np.linalg.norm(directions, axis=1, keepdims=True)
        unit: Float32s = (directions / np.maximum(norms, 1e-9)).astype(np.float32)
        return unit


def _countable(kind: pa.DataType) -> bool:
    """Whether values of the type can be the same for several items."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_text(kind.value_type)
    return _is_text(kind) or bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


class _Queue:
    """Candidates one by one: by relevance, or by maximal marginal relevance.

    Carbonell and Goldstein, "The use of MMR" (1998): lambda * relevance - (1 - lambda) * the
    largest cosine to anything taken.
    """

    def __init__(
        self,
        unit: Float32s,
        relevance: npt.NDArray[np.float64],
        order: npt.NDArray[np.int64],
        pool: int,
        mmr_lambda: float,
    ) -> None:
        """order: rows of unit and relevance, most relevant first; the first `pool` of them are
        compared with each other."""
        self._lambda = mmr_lambda
        self._unit = unit
        self._relevance = relevance
        self._pool = order[:pool]
        self._nearest = np.full(len(self._pool), -1.0)
        self._left = np.ones(len(self._pool), bool)
        self._rest = iter(order[pool:].tolist())
        self._tail: list[int] | None = None
        self._taken = 0

    def next(self) -> int | None:
        """The best row that is left, None at the end."""
        if self._tail is None and self._taken < _MMR_PLACES and self._left.any():
            marginal = self._lambda * self._relevance[self._pool]
            if self._taken:
                marginal = marginal - (1 - self._lambda) * self._nearest
            marginal[~self._left] = -np.inf
            best = int(marginal.argmax())
            self._left[best] = False
            return int(self._pool[best])
        if self._tail is None:
            self._tail = self._pool[self._left].tolist()
        return self._tail.pop(0) if self._tail else next(self._rest, None)

    def took(self, row: int) -> None:
        """The row is in the slate: what is like it gets worse."""
        self._taken += 1
        if len(self._pool) and self._tail is None:
            cosine = self._unit[self._pool] @ self._unit[row]
            self._nearest = np.maximum(self._nearest, cosine)


def _place(pins: Mapping[int, int], chosen: list[int], n: int) -> Int32s:
    """Pins at their positions, the rest around them; without gaps when there is too little."""
    rest = iter(chosen)
    placed: list[int] = []
    for position in range(1, n + 1):
        item = pins.get(position)
        if item is None:
            item = next(rest, None)
        if item is not None:
            placed.append(item)
    return np.array(placed, np.int32)
