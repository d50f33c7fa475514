"""What can go wrong online, and which HTTP status each of it is.

Adapters translate their vendor's exceptions into these; the API turns them into one JSON shape.
Anything the pipeline can answer without (a cache, a ranker) never reaches the API as an error.
"""

from __future__ import annotations


class MarqueeError(Exception):
    """An error with a place in the API: `status` is HTTP's, `code` is stable for clients."""

    status = 500
    code = "internal"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidRequest(MarqueeError):
    """The request says something that cannot be meant; `field` names the part."""

    status = 422
    code = "invalid_request"


class NotFound(MarqueeError):
    """A user, an item or a path that does not exist."""

    status = 404
    code = "not_found"


class PayloadTooLarge(MarqueeError):
    """The body is larger than the service reads."""

    status = 413
    code = "payload_too_large"


class ModelNotReady(MarqueeError):
    """No verified bundle is loaded yet."""

    status = 503
    code = "model_not_ready"


class DependencyUnavailable(MarqueeError):
    """A store or an index did not answer; the pipeline degrades, feedback must be sent again."""

    status = 503
    code = "dependency_unavailable"


class Overloaded(MarqueeError):
    """More is asked than can be answered in time; `retry_after_s` says when to ask again."""

    status = 429
    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RequestTimeout(MarqueeError):
    """The caller did not finish sending the request."""

    status = 408
    code = "request_timeout"
