"""The OpenAPI document: what FastAPI cannot know of the API, and the document as a text."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api import schemas

DESCRIPTION = "Personal recommendations from a table of who watched what."

_ERRORS = {
    401: "No API key that holds; only where keys are on.",
    403: "The API key lacks the scope, or a page of another origin would write.",
    404: "Not in the catalogue, or no such page.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    422: "Something in the request cannot be meant; `field` names it.",
    429: "More than one user or key may ask in a minute, or than can be answered in time.",
    503: "No version is loaded, or a store that is needed does not answer; try again.",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorResponse, "description": text}
    for status, text in _ERRORS.items()
}

_REF = "#/components/schemas/{model}"
_BODIES = (schemas.RecommendRequest, schemas.NextPageRequest, schemas.FeedbackRequest)
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def body_of(*bodies: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of an endpoint that reads its body, one of these, by itself."""
    refs = [{"$ref": _REF.format(model=body.__name__)} for body in bodies]
    schema = refs[0] if len(refs) == 1 else {"anyOf": refs}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def document(api: FastAPI) -> None:
    """Have `api.openapi()` also describe bodies that are read by hand, keys and limits."""
    made_by_fastapi = api.openapi

    def complete() -> dict[str, Any]:
        if api.openapi_schema is None:
            _complete(made_by_fastapi())
        return api.openapi_schema or {}

    api.openapi = complete  # type: ignore[method-assign]


def _complete(found: dict[str, Any]) -> None:
    _, made = models_json_schema([(body, "validation") for body in _BODIES], ref_template=_REF)
    components = found["components"]
    components["schemas"] = dict(sorted((components["schemas"] | made["$defs"]).items()))
    components["schemas"].pop("HTTPValidationError", None)
    components["schemas"].pop("ValidationError", None)
    components["securitySchemes"] = _SECURITY
    # The empty one: where no keys are configured, none is asked for.
    found["security"] = [{}, {"bearer": []}, {"header": []}]
    for operations in found["paths"].values():
        for operation in operations.values():
            _describe_limits(operation["responses"])


def _describe_limits(responses: dict[str, Any]) -> None:
    seconds = {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds to wait."}
    for status in ("429", "503"):
        if status in responses:
            responses[status]["headers"] = {"Retry-After": seconds}


def text(found: dict[str, Any]) -> str:
    """The document as it is checked in."""
    return json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
