"""JSON log lines on standard error, each with the request's id when it belongs to one."""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog


def configure(level: int = logging.INFO) -> None:
    """Send structlog's lines to standard error as JSON; call once per process."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )


def get(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger whose lines carry `component: name`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(component=name)
    return logger


class AccessLog:
    """Request lines in the same form, written a few at a time: one costs a tenth of a structlog
    line, and every request has one. A process that is killed loses at most the last ones."""

    _FLUSH_AFTER_S = 0.1

    def __init__(self) -> None:
        self._lines: list[bytes] = []

    def note(self, **fields: Any) -> None:
        """Write the fields as one line soon. Called from the event loop."""
        if not self._lines:
            asyncio.get_running_loop().call_later(self._FLUSH_AFTER_S, self._flush)
        line = {
            "component": "api",
            "event": "request",
            **fields,
            "level": "info",
            "timestamp": datetime.now(UTC),
        }
        self._lines.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z))

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        sys.stderr.buffer.write(b"".join(lines))
        sys.stderr.buffer.flush()
