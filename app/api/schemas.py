"""What clients may send and what they get, field by field."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, model_validator

from app.domain import EventType, Query

_INT64 = 2**63


def _identifier(value: Any) -> int | str:
    """An id is an integer or a short text; a float or a boolean is a mistake, not an id."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not -_INT64 <= value < _INT64:
            raise ValueError("an integer id must fit 64 bits")
        return value
    if isinstance(value, str):
        if not 1 <= len(value) <= 128 or not value.isprintable():
            raise ValueError("a text id must be 1 to 128 printable characters")
        return value
    raise ValueError("an id must be an integer or a text")


Identifier = Annotated[int | str, BeforeValidator(_identifier)]
Genre = Annotated[str, Field(min_length=1, max_length=100)]
Year = Annotated[int, Field(strict=True, ge=1, le=9999)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Filters(_Body):
    """Conditions on the items; evaluated inside the index."""

    genres: Annotated[
        list[Genre], Field(max_length=100, description="Any of these.", examples=[["Comedy"]])
    ] = []
    min_rating: Annotated[
        float | None,
        Field(allow_inf_nan=False, description="Least average rating of the item."),
    ] = None
    years: Annotated[
        tuple[Year | None, Year | None] | None,
        Field(description="First and last year, both included; null leaves an end open."),
    ] = None

    @model_validator(mode="after")
    def _years_in_order(self) -> Filters:
        if self.years and None not in self.years and self.years[0] > self.years[1]:  # type: ignore[operator]
            raise ValueError("years: the first year is after the last")
        return self


class RecommendRequest(_Body):
    """A request for a slate."""

    user_id: Identifier
    num_recommendations: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 10
    filters: Filters = Field(default_factory=Filters)
    exclude_watched: StrictBool = True
    exclude_ids: Annotated[list[Identifier], Field(max_length=10_000)] = []
    history: Annotated[
        list[Identifier],
        Field(max_length=1_000, description="Items the user met, oldest first; for new users."),
    ] = []

    def query(self, *, read_cache: bool) -> Query:
        """The same as the pipeline reads it."""
        years = self.filters.years or (None, None)
        return Query(
            user_id=self.user_id,
            limit=self.num_recommendations,
            genres=tuple(self.filters.genres),
            min_rating=self.filters.min_rating,
            year_from=years[0],
            year_to=years[1],
            exclude_watched=self.exclude_watched,
            exclude_ids=tuple(self.exclude_ids),
            history=tuple(self.history),
            read_cache=read_cache,
        )


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
    """The watched item that speaks for a recommendation."""

    movie_id: int | str | None = None
    item_id: int | str | None = None
    title: str


class Why(BaseModel):
    """A sentence, the item it names and the cosine similarity to it."""

    text: str
    because: Because
    similarity: float


class ScoredItem(Item):
    """An item with the score it was ordered by."""

    score: float


class Recommendation(ScoredItem):
    """One place of a slate."""

    why: Why | None


class RecommendResponse(BaseModel):
    """A slate. `degraded` names what had to be done without."""

    user_id: int | str
    recommendations: list[Recommendation]
    strategy: str
    degraded: list[str]
    request_id: str
    latency_ms: float
    model_version: str


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


class PopularResponse(BaseModel):
    """Items with their popularity scores."""

    items: list[ScoredItem]
    model_version: str


class HistoryItem(Item):
    """An item of a history; `event_type` is null for what came with the bundle."""

    event_type: EventType | None


class HistoryResponse(BaseModel):
    """What is known of a user, newest first."""

    user_id: int | str
    history: list[HistoryItem]


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
