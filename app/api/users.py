"""What is kept of one user, and its end."""

from __future__ import annotations

from collections.abc import Callable

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app.api.call import Call
from app.api.paths import PathId
from app.service import Service
from app.windows import WINDOW_S


class ErasureReceipt(BaseModel):
    """What a DELETE did. `marquee erasure verify USER` looks for what is left."""

    user_id: str
    event_id: str = Field(description="Events up to this id are gone; later ones are a new user's.")
    erased_at: str
    removed: dict[str, int] = Field(
        description="Events of the state, entries of the stream, cached slates, and, where the "
        "service knows the event log, events of the log; over all DELETEs of the user."
    )
    model_version: str = Field(description="What answers; nothing it holds of the user is served.")


class UserFeatures(BaseModel):
    """A user's last five minutes, and what the online feature store says."""

    user_id: str
    window_s: int
    clicks: int
    views: int
    events: int
    genres: dict[str, float] = Field(
        description="Shares of the genres of what the user met and did not dislike; they sum to 1."
    )
    inputs: dict[str, float | None] | None = Field(
        description="What the ranker reads of the user, of the online store or else of the bundle; "
        "null for a user whom neither knows."
    )
    degraded: list[str] = Field(
        description='"user_state" when feedback could not be read: no events, the bundle\'s inputs.'
    )


def add_users(api: APIRouter, service: Service, count: Callable[[Call, str], None]) -> None:
    """Add the endpoints below /users/{user_id}. count: a request for a user; may refuse it."""

    @api.delete("/users/{user_id}", response_model=ErasureReceipt)
    async def erase(user_id: PathId) -> Response:
        """Erase a user: state, cache, stream, event log and the next training. Asks for `admin`.

        Feedback after that starts a new, empty user. Safe to repeat.
        """
        receipt = await service.erase(user_id)
        return _json(
            ErasureReceipt(
                user_id=receipt.user_id,
                event_id=receipt.event_id,
                erased_at=receipt.erased_at,
                removed=receipt.removed,
                model_version=service.version(),
            )
        )

    @api.get("/users/{user_id}/features", response_model=UserFeatures)
    async def features(request: Request, user_id: PathId) -> Response:
        """What the features know of the user just now."""
        count(request.scope["call"], user_id)
        window = await service.window(user_id)
        return _json(
            UserFeatures(
                user_id=user_id,
                window_s=WINDOW_S,
                clicks=window.clicks,
                views=window.views,
                events=window.events,
                genres=window.genres,
                inputs=window.inputs,
                degraded=list(window.degraded),
            )
        )


def _json(model: BaseModel) -> Response:
    return Response(orjson.dumps(model.model_dump()), media_type="application/json")
