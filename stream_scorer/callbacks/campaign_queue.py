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
# A receiver may ask to be left alone for hours, not for ever.
_MAX_CLOSURE_S: Final = 86_400.0
# A wait for the pace up to this is made in memory.
SHORT_WAIT_S: Final = 2.0


class Lane:
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
        self.later = 0
        self.flying: dict[RecordKey, float] = {}
        self.failing = False
        self.is_paced = False
        self.closed_until: float | None = None
        self.width = math.inf
        self._pacer = RateLimiter(max_per_minute) if max_per_minute else None

    @property
    def waiting(self) -> int:
        """How many wait, for a slot or for their time."""
        return len(self.ready) + self.later

    def is_troubled(self, now: float) -> bool:
        """Whether its attempts fail, or take long, or the receiver asked to be left alone."""
        is_slow = bool(self.flying) and now - next(iter(self.flying.values())) > _SLOW_S
        return self.failing or self.closed_until is not None or is_slow

    def closed_s(self, now: float) -> float:
        """Seconds until the receiver may be asked again; 0: now."""
        return max(self.closed_until - now, 0.0) if self.closed_until is not None else 0.0

    def close(self, now: float, wait_s: float) -> None:
        """Nothing is sent for so long."""
        until = now + min(wait_s, _MAX_CLOSURE_S)
        if self.closed_until is None:
            self.width = max(min(self.width, len(self.flying) + 1) / 2, 1.0)
        self.closed_until = until if self.closed_until is None else max(self.closed_until, until)

    def succeeded(self, sent_at: float) -> None:
        """The receiver took a request; what was sent before it asked to be left alone does not open the lane."""
        self.width += 1 / self.width
        if self.closed_until is not None and sent_at >= self.closed_until:
            self.closed_until = None

    def is_idle(self, now: float) -> bool:
        """Whether nothing is here, and its pace has nothing to remember."""
        is_empty = not (self.waiting or self.flying or self.closed_s(now))
        return is_empty and (self._pacer is None or self._pacer.is_idle(now))

    def pace_wait_s(self, job: Delivery, now: float) -> float:
        """Seconds until its pace lets a callback through; 0: now, and it is counted.

        A wait is a promise: who comes back then has its slot. A round that has begun is brought to its end.
        """
        pacer = self._pacer
        if pacer is None or job.attempts_in_round:
            return 0.0
        promised = job.has_slot or job.retry_level > 0
        wait_s = pacer.reserved_wait_s(now) if promised else pacer.wait_s(now)
        if wait_s <= 0:
            self.is_paced = self.is_paced and promised
            if not promised:
                pacer.reserve(now)
            pacer.sent(now)
            return 0.0
        self.is_paced = True
        if wait_s > SHORT_WAIT_S or not promised:
            wait_s = pacer.wait_s(now)
            pacer.reserve(now + wait_s)
        return wait_s
