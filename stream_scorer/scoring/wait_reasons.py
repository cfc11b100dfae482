"""Reasons why due requests are not sent, and a timer with the seconds of each: ``stream_scorer.requests.wait_time``.

One reason counts at a time, the first in the order of `WaitReason`. So the sum over all reasons is the time in which
any due request waited.
"""

from __future__ import annotations

from collections import defaultdict
from enum import StrEnum
from typing import Final

from stream_scorer.scoring.circuit_breaker import OpenReason

# The loop observes several times a second. Between two observations that are further apart the loop was blocked.
_MAX_OBSERVATION_GAP_S: Final = 1.0


class WaitReason(StrEnum):
    """Why a request waits, in order of precedence."""

    CIRCUIT_OPEN = "circuit_open"
    RETRY_AFTER = "retry_after"
    SERVER_QUOTA = "server_quota"
    OWN_QUOTA = "own_quota"
    SPEND_LIMIT = "spend_limit"
    CONCURRENCY_LIMIT = "concurrency_limit"
    PARTIAL_BATCH = "partial_batch"
    BACKOFF = "backoff"
    WORKER_BUSY = "worker_busy"

    @property
    def throttle_reason(self) -> OpenReason | None:
        """The reason for a throttled circuit breaker if the wait ends at a known time; None otherwise."""
        if self in (WaitReason.RETRY_AFTER, WaitReason.SERVER_QUOTA, WaitReason.OWN_QUOTA):
            return OpenReason.QUOTA
        return OpenReason.SPEND_LIMIT if self is WaitReason.SPEND_LIMIT else None

    @property
    def explains_stall(self) -> bool:
        """Whether this reason alone explains any stall; the others last seconds at most."""
        return self not in (WaitReason.CONCURRENCY_LIMIT, WaitReason.PARTIAL_BATCH, WaitReason.WORKER_BUSY)

    @property
    def label(self) -> str:
        """The text in ``/readyz`` and log events."""
        return f"quota: {self}" if self.throttle_reason is OpenReason.QUOTA else str(self)


class WaitTimer:
    """Timer of the seconds waited, by reason. Pure: monotonic seconds are passed in."""

    def __init__(self) -> None:
        self._reason: WaitReason | None = None
        self._seen_at = 0.0
        self._sums: defaultdict[WaitReason, float] = defaultdict(float)

    def observe(self, reason: WaitReason | None, now: float) -> None:
        """Record the reason that applies from now on; None: no request waits.

        The time since the last call counts for the reason of that call, up to one second. The rest counts as
        `WaitReason.WORKER_BUSY`: the loop was blocked, usually by a broker that does not respond.
        """
        if self._reason is not None:
            passed_s = now - self._seen_at
            self._sums[self._reason] += min(passed_s, _MAX_OBSERVATION_GAP_S)
            if passed_s > _MAX_OBSERVATION_GAP_S:
                self._sums[WaitReason.WORKER_BUSY] += passed_s - _MAX_OBSERVATION_GAP_S
        self._reason, self._seen_at = reason, now

    def drain(self) -> dict[WaitReason, float]:
        """Return the seconds since the last call, by reason."""
        taken, self._sums = self._sums, defaultdict(float)
        return dict(taken)
