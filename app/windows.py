"""The window of the streaming features: what it is, and what is counted in it.

Counts are kept in slots of 15 s and summed over the newest 20, so a window is 285 to 300 s.
A user's own window needs no counting: event ids carry their time (redis_state.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.domain import EventType, ItemId

SLOT_S = 15
SLOTS = 20
WINDOW_S = SLOT_S * SLOTS
_NEWEST_MINUTE = 60 // SLOT_S

# Events by item and type in one slot. Item ids are texts, as Redis has them.
SlotCounts = Mapping[tuple[str, EventType], int]


@dataclass(frozen=True, slots=True)
class ItemWindow:
    """An item's last five minutes. velocity: wanted events (all but dislikes) a minute, of the
    newest minute. wanted: those of the whole window."""

    views: int = 0
    clicks: int = 0
    wanted: int = 0
    velocity: float = 0.0


def slot_of(timestamp_ms: int) -> int:
    """The slot of a moment."""
    return timestamp_ms // (1000 * SLOT_S)


def slots_at(now_ms: int) -> range:
    """The slots of the window that ends now, oldest first."""
    newest = slot_of(now_ms)
    return range(newest - SLOTS + 1, newest + 1)


def sum_slots(slots: Iterable[SlotCounts]) -> dict[ItemId, ItemWindow]:
    """The window of every item that has one. slots: all of the window, oldest first."""
    views: dict[str, int] = {}
    clicks: dict[str, int] = {}
    wanted: dict[str, int] = {}
    fresh: dict[str, int] = {}
    for place, counts in enumerate(slots):
        for (item, kind), count in counts.items():
            if kind is EventType.DISLIKE:
                continue
            wanted[item] = wanted.get(item, 0) + count
            if kind is EventType.VIEW:
                views[item] = views.get(item, 0) + count
            if kind is EventType.CLICK:
                clicks[item] = clicks.get(item, 0) + count
            if place >= SLOTS - _NEWEST_MINUTE:
                fresh[item] = fresh.get(item, 0) + count
    return {
        item: ItemWindow(views.get(item, 0), clicks.get(item, 0), total, float(fresh.get(item, 0)))
        for item, total in wanted.items()
    }
