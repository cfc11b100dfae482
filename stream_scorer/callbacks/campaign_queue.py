"""One campaign, as far as sending is concerned: what waits, what is under way, how it goes, and its pace."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

from stream_scorer.core.callbacks.rate_limiter import RateLimiter

if TYPE_CHECKING:
    from stream_scorer.core.callbacks.delivery_policy import Delivery
    from stream_scorer.core.exactly_once.outcome_cache import RecordKey

# A request under way for longer than this makes its campaign a slow one.
_SLOW_S: Final = 2.0
# A receiver's `Retry-After` may last hours; this bounds it.
_MAX_BLOCK_S: Final = 86_400.0
# A wait for the pace up to this is made in memory.
SHORT_WAIT_S: Final = 2.0


class CampaignQueue:
    """Times are monotonic seconds.

    Args:
        campaign_id: whose lane it is.
        max_per_minute: its pace; None: none.

    Attributes:
        ready: what waits for a slot.
        later: how many wait for their time, in the dispatcher.
        flying: when each request under way was sent, the oldest first.
        failing: whether its last attempt failed.
        is_paced: whether it is over its pace.
        closed_until: the receiver asked to be left alone until then; after that one request is made, and if that
            succeeds the lane is open again; None: it is open.
        width: how many requests may be under way. Each closure halves it, each success adds a little: so it finds what
            a receiver takes that limits its rate, and few requests come to nothing when the limit is met again.
    """

    def __init__(self, campaign_id: str | None, max_per_minute: int | None) -> None:
        self.campaign_id = campaign_id
        self.ready: deque[Delivery] = deque()
        self.delayed = 0
        self.in_flight: dict[RecordKey, float] = {}
        self.failing = False
        self.is_rate_limited = False
        self.blocked_until: float | None = None
        self.width = math.inf
        self._rate_limiter = RateLimiter(max_per_minute) if max_per_minute else None

    @property
    def waiting(self) -> int:
        """How many wait, for a slot or for their time."""
        return len(self.ready) + self.delayed

    def is_degraded(self, now: float) -> bool:
        """Whether its attempts fail, or take long, or the receiver asked to be left alone."""
        is_slow = bool(self.in_flight) and now - next(iter(self.in_flight.values())) > _SLOW_S
        return self.failing or self.blocked_until is not None or is_slow

    def blocked_for_s(self, now: float) -> float:
        """Seconds until the receiver may be asked again; 0: now."""
        return max(self.blocked_until - now, 0.0) if self.blocked_until is not None else 0.0

    def block(self, now: float, wait_s: float) -> None:
        """Nothing is sent for so long."""
        until = now + min(wait_s, _MAX_BLOCK_S)
        if self.blocked_until is None:
            self.width = max(min(self.width, len(self.in_flight) + 1) / 2, 1.0)
        self.blocked_until = until if self.blocked_until is None else max(self.blocked_until, until)

    def succeeded(self, sent_at: float) -> None:
        """The receiver took a request; what was sent before it asked to be left alone does not open the lane."""
        self.width += 1 / self.width
        if self.blocked_until is not None and sent_at >= self.blocked_until:
            self.blocked_until = None

    def is_idle(self, now: float) -> bool:
        """Whether nothing is here, and its pace has nothing to remember."""
        is_empty = not (self.waiting or self.in_flight or self.blocked_for_s(now))
        return is_empty and (self._rate_limiter is None or self._rate_limiter.is_idle(now))

    def rate_limit_wait_s(self, delivery: Delivery, now: float) -> float:
        """Seconds until its pace lets a callback through; 0: now, and it is counted.

        A wait is a promise: who comes back then has its slot. A round that has begun is brought to its end.
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
