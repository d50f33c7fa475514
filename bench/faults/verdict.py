"""What a fault did to the requests around it, in figures, and whether that is allowed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.faults.load import Answer, Log
from bench.faults.truth import Truth
from bench.load import percentile

MAX_ERROR_SHARE = 0.001
MAX_RECOVERY_S = 10.0
# So long the kernel may take to close a killed process's connections.
_DYING_S = 0.2
# An answer that took longer is not one that a recovered service gives.
_SLOW_S = 1.0


@dataclass(frozen=True)
class Span:
    """When the service was hurt and when the cause was gone, seconds of time.monotonic()."""

    hurt_at: float
    lifted_at: float
    deadly: bool = False
    """A process that answers requests died: those in flight on it may be lost."""


@dataclass(frozen=True)
class Verdict:
    """Figures of one fault. Feedback counts where it is named, slates elsewhere."""

    answered: int
    errors: int
    errors_in_flight: int
    """Of them, requests that were under way when a replica was killed."""
    refused: int
    degraded: int
    slow: int
    recovery_s: float
    """From the end of the cause to the last answer that was an error, refused, degraded or took
    longer than a second."""
    p50_ms: float | None
    p99_ms: float | None
    feedback_acknowledged: int
    feedback_refused: int
    feedback_lost: int
    mixed_versions: int
    problems: tuple[tuple[str, int], ...]
    """The most frequent errors."""
    held: bool
    """Whether all of it is allowed."""

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def judge(log: Log, span: Span, truth: Truth, lost: Sequence[Answer]) -> Verdict:
    """The figures of one fault. lost: acknowledged feedback that was not there afterwards."""
    errors = [answer for answer in log.answers if answer.is_error]
    in_flight = [answer for answer in errors if span.deadly and _under_way(answer, span)]
    refused = [answer for answer in log.slates if answer.is_refused]
    whole = sorted(a.took_s for a in log.slates if a.status == 200)
    mixed = sum(truth.is_mixed(answer) for answer in log.slates if answer.status == 200)
    recovery_s = _recovery_s(log.answers, span)
    held = (
        len(errors) <= len(in_flight)
        and len(errors) <= MAX_ERROR_SHARE * len(log.answers)
        and not refused
        and not lost
        and not mixed
        and recovery_s < MAX_RECOVERY_S
    )
    return Verdict(
        answered=len(whole),
        errors=len(errors),
        errors_in_flight=len(in_flight),
        refused=len(refused),
        degraded=sum(answer.is_degraded for answer in log.slates),
        slow=sum(took_s > _SLOW_S for took_s in whole),
        recovery_s=round(recovery_s, 2),
        p50_ms=_ms(percentile(whole, 0.5)),
        p99_ms=_ms(percentile(whole, 0.99)),
        feedback_acknowledged=sum(answer.status == 200 for answer in log.feedback),
        feedback_refused=sum(answer.is_refused for answer in log.feedback),
        feedback_lost=len(lost),
        mixed_versions=mixed,
        problems=tuple(Counter(answer.problem for answer in errors).most_common(3)),
        held=held,
    )


def _under_way(answer: Answer, span: Span) -> bool:
    return (
        answer.sent_at <= span.hurt_at + _DYING_S and answer.sent_at + answer.took_s >= span.hurt_at
    )


def _recovery_s(answers: Iterable[Answer], span: Span) -> float:
    bad = (
        answer.sent_at
        for answer in answers
        if answer.status != 200 or answer.is_degraded or answer.took_s > _SLOW_S
    )
    return max(0.0, max(bad, default=0.0) - span.lifted_at)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
