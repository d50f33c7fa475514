"""What the service answers, as types. docs/openapi.json is the authority; a test compares them.

An item's id is under `movie_id` in MovieLens bundles and under `item_id` otherwise; `item_id(row)`
reads either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

Id = int | str


class Item(TypedDict):
    """One item of the catalogue."""

    movie_id: NotRequired[Id]
    item_id: NotRequired[Id]
    title: str
    genres: list[str]
    year: int | None
    avg_rating: float | None


class ScoredItem(Item):
    """An item with the score it was ordered by."""

    score: float


class ItemWindow(TypedDict):
    """An item's last five minutes; velocity: events a minute, of the newest minute."""

    views: int
    clicks: int
    velocity: float


class PopularItem(ScoredItem):
    """`window` comes with window "5m"."""

    window: NotRequired[ItemWindow]


class HistoryItem(Item):
    """`event_type` is None for what came with the bundle."""

    event_type: str | None


class Because(TypedDict):
    """A watched item."""

    movie_id: NotRequired[Id]
    item_id: NotRequired[Id]
    title: str


class Why(TypedDict):
    """A sentence, and the watched item that it names where it names one."""

    text: str
    because: Because | None
    similarity: float | None


class Recommendation(Item):
    """One place of a slate."""

    score: float | None
    why: Why | None
    explain: NotRequired[dict[str, Any]]


class Slate(TypedDict):
    """`degraded` names what was done without. `next_cursor` comes with `paginate`."""

    user_id: Id
    recommendations: list[Recommendation]
    strategy: str
    degraded: list[str]
    request_id: str
    latency_ms: float
    model_version: str
    next_cursor: NotRequired[str | None]
    explained: NotRequired[dict[str, Any] | None]


class Stored(TypedDict):
    """The event is kept, and the next slate reflects it."""

    status: str
    user_id: Id
    item_id: Id
    event_type: str
    revision: str
    request_id: str


class Similar(TypedDict):
    """The item and those most like it."""

    item: Item
    similar: list[ScoredItem]
    model_version: str


class Told(TypedDict):
    """Why an item is for a user; `written_by` is "model" for prose, otherwise "template"."""

    user_id: Id
    item: Item
    text: str
    written_by: str
    because: list[Because]
    degraded: list[str]
    model_version: str


class Features(TypedDict):
    """A user's last five minutes; `genres` are shares of those the user met and did not dislike.

    inputs: what the ranker reads of the user, None when neither the online feature store nor the
    bundle knows them. `degraded` says "user_state" when feedback could not be read.
    """

    user_id: str
    window_s: int
    clicks: int
    views: int
    events: int
    genres: dict[str, float]
    inputs: dict[str, float | None] | None
    degraded: list[str]


class Receipt(TypedDict):
    """What an erasure removed, by place; events up to `event_id` are gone."""

    user_id: str
    event_id: str
    erased_at: str
    removed: dict[str, int]
    model_version: str


class Filters(TypedDict, total=False):
    """Conditions on the items of a slate."""

    genres: list[str]
    min_rating: float | None
    years: tuple[int | None, int | None] | None


class SlateOptions(TypedDict, total=False):
    """What a request for a slate may say beside the user."""

    num_recommendations: int
    filters: Filters
    exclude_watched: bool
    exclude_ids: list[Id]
    history: list[Id]
    rules: dict[str, Any]
    explain: bool
    explain_item: Id


def item_id(row: Mapping[str, Any]) -> Id:
    """The id of an item of any answer."""
    found: Id = row["movie_id"] if "movie_id" in row else row["item_id"]
    return found
