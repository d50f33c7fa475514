"""What clients may send and what they get, field by field."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from app.domain import EventType, Query
from app.fields import WHOLE, Genre, Identifier, Years, year_range
from app.rules import Rules as RuleValues
from app.rules import merged
from app.rules_json import Rules


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Filters(_Body):
    """Conditions on the items; evaluated inside the index."""

    genres: Annotated[
        tuple[Genre, ...],
        Field(max_length=100, description="Any of these.", examples=[["Comedy"]]),
    ] = ()
    min_rating: Annotated[
        float | None,
        Field(
            strict=True,
            ge=-1e9,
            le=1e9,
            allow_inf_nan=False,
            description="Least average rating of the item.",
        ),
    ] = None
    years: Years = None


class RecommendRequest(_Body):
    """A request for a slate."""

    user_id: Identifier
    num_recommendations: Annotated[int, Field(strict=True, ge=1, le=10_000), WHOLE] = 10
    filters: Filters = Field(default_factory=Filters)
    exclude_watched: StrictBool = True
    exclude_ids: Annotated[tuple[Identifier, ...], Field(max_length=10_000)] = ()
    history: Annotated[
        tuple[Identifier, ...],
        Field(max_length=1_000, description="Items the user met, oldest first; for new users."),
    ] = ()
    rules: Annotated[
        Rules | None, Field(description="On top of the service's own rules, see docs/rules.md.")
    ] = None
    explain: Annotated[StrictBool, Field(description="Say of every item how it got its place.")] = (
        False
    )
    explain_item: Annotated[
        Identifier | None, Field(description="Say of this item why it is not in the slate.")
    ] = None
    paginate: Annotated[
        StrictBool, Field(description="Give a cursor to the next page of the same slate.")
    ] = False

    def query(self, *, read_cache: bool, configured: RuleValues | None) -> Query:
        """The same as the pipeline reads it; `configured`: the service's own rules."""
        asked = self.rules.value() if self.rules is not None else None
        years = year_range(self.filters.years)
        return Query(
            user_id=self.user_id,
            limit=self.num_recommendations,
            genres=self.filters.genres,
            min_rating=self.filters.min_rating,
            year_from=years[0],
            year_to=years[1],
            exclude_watched=self.exclude_watched,
            exclude_ids=self.exclude_ids,
            history=self.history,
            read_cache=read_cache,
            rules=merged(configured, asked),
            explain=self.explain,
            explain_item=self.explain_item,
        )


class NextPageRequest(_Body):
    """A request for the next page of a slate."""

    user_id: Identifier
    cursor: Annotated[
        str, Field(min_length=1, max_length=200, description="`next_cursor` of the page before.")
    ]
    num_recommendations: Annotated[
        Annotated[int, Field(strict=True, ge=1, le=10_000), WHOLE] | None,
        Field(description="Size of the page; null: as the first's."),
    ] = None


class FeedbackRequest(_Body):
    """What a user did with an item."""

    user_id: Identifier
    item_id: Identifier
    event_type: EventType


class Item(BaseModel):
    """One item; its id is `movie_id` in MovieLens bundles and `item_id` otherwise."""

    movie_id: int | str | None = None
    item_id: int | str | None = None
    title: str
    genres: list[str]
    year: int | None
    avg_rating: float | None


class Because(BaseModel):
    """The user's item that speaks for a recommendation."""

    movie_id: int | str | None = None
    item_id: int | str | None = None
    title: str


class Why(BaseModel):
    """A sentence; the watched item it names and how similar it is, where it names one.

    `similarity` is measured as the `score` of `/similar` is."""

    text: str
    because: Because | None
    similarity: float | None


class ScoredItem(Item):
    """An item with the score it was ordered by."""

    score: float


class StageScores(BaseModel):
    """Scores of an item on its way; null where a stage did not have it."""

    retrieved: float | None
    ranked: float | None
    relevance: float | None


class StagePlaces(BaseModel):
    """Places of an item on its way, from 1; null where a stage did not have it."""

    retrieved: int | None
    ranked: int | None
    before_rules: int | None
    final: int | None


class Trace(BaseModel):
    """How an item got its place; `source` is null for one that no stage brought."""

    source: Literal["tower", "popular", "pin"] | None
    scores: StageScores
    places: StagePlaces
    rules: list[str]


class Recommendation(Item):
    """One place of a slate. `score` is null for an item that was no candidate; `explain` is there
    when it was asked for."""

    score: float | None
    why: Why | None
    explain: Trace | None = None


class Explained(BaseModel):
    """Why the item of `explain_item` is, or is not, in the slate. `exact_place`, among the
    `of_items` that are allowed, is null for an item that is not."""

    item_id: int | str
    in_slate: bool
    reason: Literal[
        "in_slate",
        "unknown_item",
        "excluded",
        "watched",
        "disliked",
        "blocked",
        "filtered",
        "capped",
        "not_retrieved",
        "below_the_cut",
    ]
    detail: str
    explain: Trace | None = None
    exact_score: float | None = None
    exact_place: int | None = None
    of_items: int | None = None


class RecommendResponse(BaseModel):
    """A slate. `degraded` names what had to be done without; `next_cursor` (null at the end) and
    `explained` are there when they were asked for."""

    user_id: int | str
    recommendations: list[Recommendation]
    strategy: str
    degraded: list[str]
    request_id: str
    latency_ms: float
    model_version: str
    next_cursor: str | None = None
    explained: Explained | None = None


class FeedbackResponse(BaseModel):
    """The acknowledgement: the event is stored, and the next slate reflects it."""

    status: str
    user_id: int | str
    item_id: int | str
    event_type: EventType
    revision: str
    request_id: str


class SimilarResponse(BaseModel):
    """The item and those most like it."""

    item: Item
    similar: list[ScoredItem]
    model_version: str


class ItemsResponse(BaseModel):
    """A list of items."""

    items: list[Item]
    model_version: str


class ItemWindow(BaseModel):
    """Events of an item in the last five minutes; velocity: all but dislikes, of the newest
    minute."""

    views: int
    clicks: int
    velocity: float


class PopularItem(ScoredItem):
    """A popular item; `window` is there when the last five minutes were asked for."""

    window: ItemWindow | None = None


class PopularResponse(BaseModel):
    """Items with their popularity scores. `degraded` says "user_state" when the counts of the last
    five minutes are old: the store that has them could not be read."""

    items: list[PopularItem]
    degraded: list[str]
    model_version: str


class HistoryItem(Item):
    """An item of a history; `event_type` is null for what came with the bundle."""

    event_type: EventType | None


class HistoryResponse(BaseModel):
    """What is known of a user, newest first. `degraded` says "user_state" when feedback could not
    be read, and this is the bundle's part alone."""

    user_id: int | str
    history: list[HistoryItem]
    degraded: list[str]


class WhyResponse(BaseModel):
    """Why an item is for a user. `because`: those of the user's items that are most like it;
    `degraded` says "prose" when a model should have written it and did not."""

    user_id: int | str
    item: Item
    text: str
    written_by: Literal["model", "template"]
    because: list[Item]
    degraded: list[str]
    model_version: str


class UsersResponse(BaseModel):
    """Some users of the bundle."""

    users: list[int | str]


class Problem(BaseModel):
    """What went wrong: a stable code, one line, and the field when there is one."""

    code: str
    message: str
    field: str | None = None


class ErrorResponse(BaseModel):
    """Every error has this shape."""

    error: Problem
    request_id: str
