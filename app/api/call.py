"""One request as the layers below HTTP's framework see it."""

from __future__ import annotations

from dataclasses import dataclass

from app.limits import Allowance


@dataclass(slots=True)
class Call:
    """What a handler needs to know besides the body, and what the edge is to say and note."""

    request_id: str
    started_at: float  # time.perf_counter() seconds
    read_cache: bool
    key_id: str | None = None
    is_admin: bool = False  # goes to the audit log
    allowance: Allowance | None = None  # the tightest that was counted

    def counted(self, allowance: Allowance | None) -> None:
        """Keep the allowance of which least is left."""
        if allowance is None:
            return
        if self.allowance is None or allowance.remaining < self.allowance.remaining:
            self.allowance = allowance
