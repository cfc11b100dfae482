"""Circuit breaker of a target: 410 opens it, and only probes are sent until one gets another response."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.core.exactly_once.outcome_cache import RecordKey, key_of

if TYPE_CHECKING:
    from stream_scorer.core.callbacks.delivery_policy import Delivery


class TargetBreaker:
    """Open, or holding. Times are monotonic seconds.

    Args:
        probe_interval_s: how often the receiver is asked while it is held.

    Attributes:
        message: what the receiver said; None: it is open.
        probe: the callback that is sent next, the first that was turned away; None: another has to do.
    """

    def __init__(self, probe_interval_s: float) -> None:
        self._probe_interval_s = probe_interval_s
        self._next_probe_at = 0.0
        self._probing: RecordKey | None = None
        self.message: str | None = None
        self.probe: Delivery | None = None

    def trip(self, message: str, now: float) -> bool:
        """The receiver said 410. Returns whether it did not before."""
        began = self.message is None
        self.message = message
        self._next_probe_at = now + self._probe_interval_s
        return began

    def reset(self) -> None:
        """The receiver answers something else."""
        self.message = None
        self._probing = None

    def is_probe_due(self, now: float) -> bool:
        """Whether a probe may be sent."""
        return now >= self._next_probe_at

    def is_probe(self, delivery: Delivery) -> bool:
        """Return whether this is the probe in flight: deliveries sent before the breaker opened prove nothing."""
        return self._probing == key_of(delivery.record)

    def probe_sent(self, delivery: Delivery, now: float) -> None:
        """A probe is under way."""
        self.probe = None
        self._probing = key_of(delivery.record)
        self._next_probe_at = now + self._probe_interval_s
