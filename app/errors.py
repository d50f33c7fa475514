"""What can go wrong online, and which HTTP status each of it is.

Adapters translate their vendor's exceptions into these; the API turns them into one JSON shape.
Anything the pipeline can answer without (a cache, a ranker) never reaches the API as an error.
"""

from __future__ import annotations


class MarqueeError(Exception):
    """An error with a place in the API: `status` is HTTP's, `code` is stable for clients."""

    status = 500
    code = "internal"
    retry_after_s: int | None = None  # when the same request may well succeed

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


class CursorUnknown(MarqueeError):
    """A text that is no cursor, or another user's."""

    status = 404
    code = "cursor_unknown"


class CursorExpired(MarqueeError):
    """The slate that a cursor reads on in is no longer kept."""

    status = 410
    code = "cursor_expired"


class Unauthorized(MarqueeError):
    """No API key, or one that does not hold."""

    status = 401
    code = "unauthorized"


class Forbidden(MarqueeError):
    """The API key lacks the scope, or a page of another origin would write."""

    status = 403
    code = "forbidden"


class TooManyRequests(MarqueeError):
    """More requests in a minute than one user or key may make."""

    status = 429
    code = "too_many_requests"

    def __init__(self, message: str, *, limit: int, reset_s: int, retry_after_s: int) -> None:
        """limit: requests a minute. reset_s: until all of them are back, seconds."""
        super().__init__(message)
        self.limit = limit
        self.reset_s = reset_s
        self.retry_after_s = retry_after_s


class ModelNotReady(MarqueeError):
    """No verified bundle is loaded yet."""

    status = 503
    code = "model_not_ready"


class DependencyUnavailable(MarqueeError):
    """A store or an index did not answer; the pipeline degrades, feedback must be sent again."""

    status = 503
    code = "dependency_unavailable"
    retry_after_s = 1


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
