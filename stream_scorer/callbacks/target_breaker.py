"""Circuit breaker of a target: 410 opens it, and only probes are sent until one gets another response."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.core.records import RecordKey, key_of

if TYPE_CHECKING:
    from stream_scorer.core.callbacks.delivery_policy import Delivery


class TargetBreaker:
    """Closed or open. Times are monotonic seconds.

    Args:
        probe_interval_s: seconds between probes while it is open.

    Attributes:
        message: the failure that opened it; None: it is closed.
        probe: the callback that is sent next, the first that got a 410; None: any other is used.
    """

    def __init__(self, probe_interval_s: float) -> None:
        self._probe_interval_s = probe_interval_s
        self._next_probe_at = 0.0
        self._probing: RecordKey | None = None
        self.message: str | None = None
        self.probe: Delivery | None = None

    def trip(self, message: str, now: float) -> bool:
        """Open the breaker after a 410. Return whether it was closed."""
        began = self.message is None
        self.message = message
        self._next_probe_at = now + self._probe_interval_s
        return began

    def reset(self) -> None:
        """Close the breaker after a response other than 410."""
        self.message = None
        self._probing = None

    def is_probe_due(self, now: float) -> bool:
        """Return whether a probe may be sent."""
        return now >= self._next_probe_at

    def is_probe(self, delivery: Delivery) -> bool:
        """Return whether this is the probe in flight: deliveries sent before the breaker opened prove nothing."""
        return self._probing == key_of(delivery.record)

    def probe_sent(self, delivery: Delivery, now: float) -> None:
        """Record that a probe is in flight."""
        self.probe = None
        self._probing = key_of(delivery.record)
        self._next_probe_at = now + self._probe_interval_s
