"""Holding: no new request but a probe. A state machine of two states, open and holding.

While it holds, one waiting contact is asked about alone every ``probe_interval_s``, never before a ``Retry-After``. The
first probe that the API answers ends the hold. ``Holding`` says since when, why, and when the next probe is due.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hold:
    """One hold. Times are monotonic seconds. ``broken_contract``: the API works, but refuses every contact alike."""

    reason: str
    since: float
    next_probe_at: float
    broken_contract: bool


class Holding:
    """Open (``current`` is None) or holding (``current`` says why)."""

    def __init__(self, probe_interval_s: float) -> None:
        self._probe_interval_s = probe_interval_s
        self.current: Hold | None = None

    def begin(self, reason: str, now: float, *, until: float = 0.0, broken_contract: bool = False) -> bool:
        """Starts to hold, or puts the next probe of the present hold off to ``until``. Returns whether it started."""
        if self.current is not None:
            self.put_off(until)
            return False
        first_probe_at = now if broken_contract else now + self._probe_interval_s
        self.current = Hold(reason, now, max(first_probe_at, until), broken_contract)
        return True

    def put_off(self, until: float) -> None:
        """The API asked not to be asked before ``until``; without a hold that is not our business."""
        if self.current is not None:
            self._schedule(self.current.reason, max(self.current.next_probe_at, until))

    def probe_failed(self, reason: str, now: float, *, until: float = 0.0) -> None:
        """The API is not back: the next probe is due an interval from now, or at ``until`` if that is later."""
        self._schedule(reason, max(now + self._probe_interval_s, until))

    def end(self) -> None:
        """The API is back."""
        self.current = None

    def _schedule(self, reason: str, next_probe_at: float) -> None:
        if self.current is not None:
            self.current = Hold(reason, self.current.since, next_probe_at, self.current.broken_contract)
