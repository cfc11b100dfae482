"""Reports of an open or throttled circuit breaker: since when, for how long, and when the next request is sent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from stream_scorer.runtime.clock import Clock
    from stream_scorer.scoring.circuit_breaker import BreakerState


class ReportedState(NamedTuple):
    """An open or throttled state, and its beginning in ISO 8601, UTC."""

    state: BreakerState
    since: str

    @property
    def facts(self) -> dict[str, str]:
        """The fields of its log events."""
        return {"reason": str(self.state.reason), "detail": self.state.message, "since": self.since}


class StateReport:
    """Formatter of open and throttled states: durations and texts.

    Args:
        clock: the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def report(self, breaker: BreakerState | None, before: ReportedState | None) -> ReportedState | None:
        """Return the state with its beginning, which stays as first reported; ``before``: the last report."""
        if breaker is None:
            return None
        if before is not None and before.state.since == breaker.since:
            return ReportedState(breaker, before.since)
        began_s = self._clock.unix_ms() / 1000 - self.age_s(breaker)
        return ReportedState(breaker, datetime.fromtimestamp(int(began_s), UTC).isoformat().replace("+00:00", "Z"))

    def age_s(self, breaker: BreakerState) -> float:
        """Return the seconds since the state began."""
        return round(self._clock.monotonic() - breaker.since, 1)

    def left_s(self, breaker: BreakerState) -> float:
        """Return the seconds until the next probe or request."""
        return max(0.0, breaker.next_probe_at - self._clock.monotonic())

    def since(self, known: ReportedState) -> str:
        """Return the text of its beginning and duration."""
        return f"since {known.since} ({self.age_s(known.state):.0f} s)"


def next_of(breaker: BreakerState) -> str:
    """Return what is sent next: ``probe`` or ``request``."""
    return "probe" if breaker.is_open else "request"
