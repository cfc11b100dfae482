"""Holds as people and meters are told of them: since when, for how long, and when something happens next."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from stream_scorer.runtime.clock import Clock
    from stream_scorer.scoring.circuit_breaker import BreakerState


class Known(NamedTuple):
    """A hold, and its beginning in ISO 8601, UTC."""

    hold: BreakerState
    since: str

    @property
    def facts(self) -> dict[str, str]:
        """What a log line says of it."""
        return {"reason": str(self.hold.reason), "detail": self.hold.message, "since": self.since}


class Telling:
    """Puts holds into figures and words.

    Args:
        clock: the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def known(self, hold: BreakerState | None, before: Known | None) -> Known | None:
        """Return the hold with its beginning, which stays as it was first said; ``before``: what was known last."""
        if hold is None:
            return None
        if before is not None and before.hold.since == hold.since:
            return Known(hold, before.since)
        began_s = self._clock.unix_ms() / 1000 - self.age_s(hold)
        return Known(hold, datetime.fromtimestamp(int(began_s), UTC).isoformat().replace("+00:00", "Z"))

    def age_s(self, hold: BreakerState) -> float:
        """Return how long it has lasted."""
        return round(self._clock.monotonic() - hold.since, 1)

    def left_s(self, hold: BreakerState) -> float:
        """Return how long it is until the next probe or request."""
        return max(0.0, hold.next_probe_at - self._clock.monotonic())

    def since(self, known: Known) -> str:
        """Return when it began, in words."""
        return f"since {known.since} ({self.age_s(known.hold):.0f} s)"


def next_of(hold: BreakerState) -> str:
    """Return what comes next: ``probe`` or ``request``."""
    return "probe" if hold.is_open else "request"
