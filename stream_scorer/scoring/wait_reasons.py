"""Why what is due is not sent, and for how long: the sums behind ``stream_scorer.requests.waited``.

Only one reason counts at a time, the one that would have to go first, so the sums of all reasons together are the time
in which anything at all was kept back.
"""

from __future__ import annotations

from collections import defaultdict
from enum import StrEnum
from typing import Final

from stream_scorer.scoring.circuit_breaker import Cause

# The loop looks several times a second. Between two looks that are further apart it was held up itself.
_LOOK_WITHIN_S: Final = 1.0


class Wait(StrEnum):
    """What keeps a request back, in the order in which it is looked for."""

    HOLDING = "holding"
    RETRY_AFTER = "retry_after"
    SERVER_QUOTA = "server_quota"
    OWN_QUOTA = "own_quota"
    BUDGET = "budget"
    NO_SLOT = "no_slot"
    PACE = "pace"
    BACKOFF = "backoff"
    LOOP = "loop"

    @property
    def cause(self) -> Cause | None:
        """Which pause it is, where only time helps; None: it is none."""
        if self in (Wait.RETRY_AFTER, Wait.SERVER_QUOTA, Wait.OWN_QUOTA):
            return Cause.QUOTA
        return Cause.BUDGET if self is Wait.BUDGET else None

    @property
    def explains(self) -> bool:
        """Whether it explains by itself that a record waits, however long; the others pass within seconds."""
        return self not in (Wait.NO_SLOT, Wait.PACE, Wait.LOOP)

    @property
    def said(self) -> str:
        """How ``/readyz`` and log lines put it."""
        return f"quota: {self}" if self.cause is Cause.QUOTA else str(self)


class Waits:
    """Sums up the seconds, by reason. Pure: times are monotonic seconds, passed in."""

    def __init__(self) -> None:
        self._reason: Wait | None = None
        self._seen_at = 0.0
        self._sums: defaultdict[Wait, float] = defaultdict(float)

    def see(self, reason: Wait | None, now: float) -> None:
        """From now on this keeps requests back; None: nothing does.

        The time since the last call counts for the reason of that call, but for what is over a second of it: in that
        the loop was busy elsewhere (`Wait.LOOP`), mostly with a broker that does not answer.
        """
        if self._reason is not None:
            passed_s = now - self._seen_at
            self._sums[self._reason] += min(passed_s, _LOOK_WITHIN_S)
            if passed_s > _LOOK_WITHIN_S:
                self._sums[Wait.LOOP] += passed_s - _LOOK_WITHIN_S
        self._reason, self._seen_at = reason, now

    def take(self) -> dict[Wait, float]:
        """The seconds since the last call."""
        taken, self._sums = self._sums, defaultdict(float)
        return dict(taken)
