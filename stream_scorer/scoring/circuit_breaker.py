"""Circuit breaker for the scoring API: a pure state machine with time passed in.

::

    closed     throttle ─▶ throttled, trip ─▶ open
    throttled  clear_throttle ─▶ closed, trip ─▶ open
    open       probe_failed ─▶ open, reset ─▶ closed

*Open* (reason ``api``): no request is sent except probes (`scoring.half_open_probe`), every ``probe_interval_s``, never
before a ``Retry-After``. The first usable result of a probe ends it; the breakers of the model versions
(`scoring.version_state`) are half-open then, and their batch sizes grow from a single contact.

*Throttled* (reasons ``quota`` and ``spend_limit``): due requests wait for a known time. A throttle below
`_MIN_REPORTED_THROTTLE_S` is the normal rate of a backlog and is not reported.

`on_change` is called when a state begins, when its reason or message changes, and when it ends. Failed probes with the
same message and unreported throttles cause no call.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_MIN_REPORTED_THROTTLE_S: Final = 5.0
# Request ids and long numbers differ between two failures of one kind. A status has three digits and stays.
_VARIABLE_PART: Final = re.compile(r"\b(?=[\w-]*\d)[0-9a-fA-F-]{8,}\b|\d{4,}")


class OpenReason(StrEnum):
    """The component or limit that prevents contacts from being scored."""

    API = "api"
    QUOTA = "quota"
    SPEND_LIMIT = "spend_limit"
    KAFKA = "kafka"
    REGISTRY = "registry"


@dataclass(frozen=True, slots=True)
class BreakerState:
    """An open or throttled state. Times are monotonic seconds.

    Attributes:
        reason: the component or limit that caused it.
        message: the latest failure, one line.
        since: when the state began.
        next_probe_at: when the next probe is due; in a throttle, when the next request may be sent.
        probes: number of failed probes.
    """

    reason: OpenReason
    message: str
    since: float
    next_probe_at: float
    probes: int = 0

    @property
    def is_open(self) -> bool:
        """Whether a probe ends this state. A throttle ends at a known time."""
        return self.reason is OpenReason.API

    def covers(self, message: str) -> bool:
        """Return whether the state's message already contains ``message``, request ids and long numbers aside."""
        return _kind(message) in _kind(self.message)


class CircuitBreaker:
    """See the module docstring.

    Args:
        probe_interval_s: seconds between probes.
        on_change: called with the last reported state and the new one; None means closed.
        on_probe: called with the result of each probe: ``recovered`` or ``failed``.
    """

    def __init__(
        self,
        probe_interval_s: float,
        *,
        on_change: Callable[[BreakerState | None, BreakerState | None], object] = lambda _before, _now: None,
        on_probe: Callable[[str], object] = lambda _outcome: None,
    ) -> None:
        self.probe_interval_s: Final = probe_interval_s
        self._on_change = on_change
        self._on_probe = on_probe
        self._state: BreakerState | None = None
        self._reported: BreakerState | None = None

    @property
    def open_state(self) -> BreakerState | None:
        """The state while the breaker is open; None while it is closed or throttled."""
        return self._state if self._state is not None and self._state.is_open else None

    @property
    def reported(self) -> BreakerState | None:
        """The present state if it was reported; None while closed or in a throttle too short to report."""
        return None if self._reported is None else self._state

    # --- open

    def trip(self, message: str, now: float, *, until: float = 0.0) -> bool:
        """Open the breaker, or defer the next probe to ``until`` if it is open. Return whether it was opened."""
        if self.open_state is not None:
            self.defer_probe(until)
            return False
        self._become(BreakerState(OpenReason.API, message, now, max(now + self.probe_interval_s, until)))
        return True

    def defer_probe(self, until: float) -> None:
        """Send no probe before ``until``. Without effect unless the breaker is open."""
        state = self.open_state
        if state is not None:
            self._become(replace(state, next_probe_at=max(state.next_probe_at, until)))

    def probe_failed(self, message: str, now: float, *, until: float = 0.0) -> None:
        """Schedule the next probe: an interval from now, or at ``until`` if that is later."""
        state = self.open_state
        if state is not None:
            self._on_probe("failed")
            next_probe_at = max(now + self.probe_interval_s, until)
            self._become(replace(state, message=message, next_probe_at=next_probe_at, probes=state.probes + 1))

    def reset(self) -> None:
        """Close the breaker after a successful probe."""
        if self.open_state is not None:
            self._on_probe("recovered")
            self._become(None)

    # --- throttled

    def throttle(self, reason: OpenReason, message: str, now: float, until: float) -> None:
        """Record that due requests may not be sent before ``until``. Call it repeatedly while that is so.

        Without effect while the breaker is open.
        """
        if self.open_state is None:
            throttled = self._state
            since = now if throttled is None or throttled.reason is not reason else throttled.since
            state = BreakerState(reason, message, since, until)
            self._become(state, report=now - since >= _MIN_REPORTED_THROTTLE_S)

    def clear_throttle(self) -> None:
        """Close the breaker if it is throttled. Without effect while it is open."""
        if self.open_state is None:
            self._become(None)

    def _become(self, state: BreakerState | None, *, report: bool = True) -> None:
        before = self.reported
        self._state = state
        reported = state if report else None
        if not _is_same(self._reported, reported):
            self._reported = reported
            self._on_change(before, reported)


def _is_same(one: BreakerState | None, other: BreakerState | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.reason, one.since, _kind(one.message)) == (other.reason, other.since, _kind(other.message))


def _kind(message: str) -> str:
    return _VARIABLE_PART.sub("…", message)
