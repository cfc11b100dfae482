"""Queue of one campaign: waiting callbacks, requests in flight, failures, and the rate limit."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

from stream_scorer.core.rate_limiter import ReservingRateLimiter

if TYPE_CHECKING:
    from stream_scorer.core.callbacks.retry_policy import Delivery
    from stream_scorer.core.records import RecordKey

# A request in flight for longer than this makes its campaign degraded.
_SLOW_S: Final = 2.0
# A receiver's `Retry-After` may last hours; this bounds it.
_MAX_BLOCK_S: Final = 86_400.0
# An outage has ended when no attempt has failed for so long, and the last one succeeded. A callback that fails among
# others that succeed is one outage, not one at each attempt.
_RECOVERED_AFTER_S: Final = 60.0
# A wait for the rate limit up to this stays in memory.
SHORT_WAIT_S: Final = 2.0


class CampaignQueue:
    """Queue of one campaign. Times are monotonic seconds.

    Args:
        campaign_id: the campaign.
        max_per_minute: its rate limit; None: none.

    Attributes:
        ready: the callbacks that wait for a slot.
        delayed: number of callbacks that are not due yet; the dispatcher has them.
        in_flight: when each request in flight was sent, the oldest first.
        failing: whether its last attempt failed.
        has_outage: whether an attempt has failed in the last minute, or all since then.
        is_rate_limited: whether it exceeds its rate limit.
        blocked_until: end of the pause that the receiver demands; then one request is sent, and its success ends the
            block; None: not blocked.
        width: maximum number of requests in flight. Each block halves it, each success adds a little: so it approaches
            the receiver's rate limit, and few requests fail when the limit is exceeded again.
    """

    def __init__(self, campaign_id: str | None, max_per_minute: int | None) -> None:
        self.campaign_id = campaign_id
        self.ready: deque[Delivery] = deque()
        self.delayed = 0
        self.in_flight: dict[RecordKey, float] = {}
        self.failing = False
        self.has_outage = False
        self._failed_at = -math.inf
        self.is_rate_limited = False
        self.blocked_until: float | None = None
        self.width = math.inf
        self._rate_limiter = ReservingRateLimiter(max_per_minute) if max_per_minute else None

    @property
    def waiting(self) -> int:
        """Number of waiting callbacks, ready or delayed."""
        return len(self.ready) + self.delayed

    def is_degraded(self, now: float) -> bool:
        """Return whether its attempts fail or are slow, or the receiver demands a pause."""
        is_slow = bool(self.in_flight) and now - next(iter(self.in_flight.values())) > _SLOW_S
        return self.failing or self.blocked_until is not None or is_slow

    def blocked_for_s(self, now: float) -> float:
        """Return the seconds until the next request may be sent; 0: now."""
        return max(self.blocked_until - now, 0.0) if self.blocked_until is not None else 0.0

    def block(self, now: float, wait_s: float) -> None:
        """Pause the campaign for ``wait_s`` seconds."""
        until = now + min(wait_s, _MAX_BLOCK_S)
        if self.blocked_until is None:
            self.width = max(min(self.width, len(self.in_flight) + 1) / 2, 1.0)
        self.blocked_until = until if self.blocked_until is None else max(self.blocked_until, until)

    def succeeded(self, sent_at: float) -> None:
        """Record a success; a request sent before the pause does not end the block."""
        self.width += 1 / self.width
        if self.blocked_until is not None and sent_at >= self.blocked_until:
            self.blocked_until = None

    def attempted(self, now: float, *, failed: bool) -> bool:
        """Record the end of an attempt. Return whether an outage has begun."""
        begins = failed and not self.has_outage
        self.failing, self.has_outage = failed, self.has_outage or failed
        if failed:
            self._failed_at = now
        return begins

    def has_recovered(self, now: float) -> bool:
        """Return whether an outage has ended; it is returned once."""
        if not self.has_outage or self.failing or now - self._failed_at < _RECOVERED_AFTER_S:
            return False
        self.has_outage = False
        return True

    def admits_probe(self, now: float) -> bool:
        """Return whether pause and rate limit admit a probe now; it is counted then."""
        limiter = self._rate_limiter
        # Reservations do not count: they are of callbacks that the breaker blocks until a probe is accepted.
        if self.blocked_for_s(now) > 0 or (limiter is not None and limiter.reserved_wait_s(now) > 0):
            return False
        if limiter is not None:
            limiter.sent(now)
        return True

    def is_idle(self, now: float) -> bool:
        """Return whether the queue is empty, not blocked, and its rate limiter is idle."""
        is_empty = not (self.waiting or self.in_flight or self.blocked_for_s(now))
        return is_empty and (self._rate_limiter is None or self._rate_limiter.is_idle(now))

    def rate_limit_wait_s(self, delivery: Delivery, now: float) -> float:
        """Return the seconds until the rate limit admits a callback; 0: now, and it is counted.

        A wait is a reservation: the callback has its slot at that time. A round that has begun is finished first.
        """
        limiter = self._rate_limiter
        if limiter is None or delivery.attempts_in_round:
            return 0.0
        promised = delivery.has_slot or delivery.retry_level > 0
        wait_s = limiter.reserved_wait_s(now) if promised else limiter.wait_s(now)
        if wait_s <= 0:
            self.is_rate_limited = self.is_rate_limited and promised
            if not promised:
                limiter.reserve(now)
            limiter.sent(now)
            return 0.0
        self.is_rate_limited = True
        if wait_s > SHORT_WAIT_S or not promised:
            wait_s = limiter.wait_s(now)
            limiter.reserve(now + wait_s)
        return wait_s
