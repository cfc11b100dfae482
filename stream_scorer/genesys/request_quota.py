"""Quota governor: how many requests may be sent, and when, by the lower of the own count and the API's.

Own count: at most ``requests_per_minute`` in any 60 s, and a little longer (`_GUARD_S`), because two requests sent 60 s
apart may arrive closer together. The API's count: the headers of every answer have the requests counted in the present
window, the number allowed, and the seconds until the next window. Requests in flight, which the API may or may not have
counted, are added to its count. So the last requests of a window are sent only as earlier answers arrive, and none of
them earns a 429.

``reset`` is in whole seconds, of unknown rounding. Every reading bounds the end of the window from above
(``now + reset``, and one second more for a number without fraction); the lowest of these bounds counts. That costs at
most a second of a minute: at least 97 % of the quota is used.

Early batches. A batch that is not full costs the same request as a full one. Sent whenever ``linger`` has passed, five
contacts a second would use all 300 requests of a minute. So batches that close early take at most a fifth of the
remaining requests, spread evenly over the window, with a gap between two of them::

    gap = min(10 s, 60 s / (0.2 * remaining))

That is 1 s with 300 requests left, and 10 s with 30 left. A lone contact after a quiet time is sent as soon as it has
lingered. A steady trickle sends about 50 requests a minute, each with all contacts received since the last one.

Events of one contact id cannot share a request, so frequent ones keep many batches open at once. Lingering cannot merge
those, they need one request each: the gap is divided by their number. Two batches are sent twice as often as one. The
same holds for the batches of several model versions. From five on they may use up the quota, evenly: after a short
burst 98 % of it, so that no pause follows.

Forecast. `Quota.exhausted_in_s` is the time until the quota is used up at the present pace, for each of both counts::

    pace      = requests of the last 10 s / 10 s
    used up   = remaining / pace, if that is before the count restarts (at the end of the API's window; for the own
                count after 60 s), else 60 s

The result is the lower of both; 0 if no request remains.

Pure: used by one thread, with ``now`` passed in, in monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from stream_scorer.core.rate_limiter import WINDOW_S, RateLimiter, SlidingWindow

if TYPE_CHECKING:
    from stream_scorer.core.scoring.api_response import RateLimitHeaders

_GUARD_S: Final = 0.5
_ROUNDING_S: Final = 1.0
_EARLY_SHARE: Final = 0.2
_STEADY_SHARE: Final = 0.98
_BURST_SHARE: Final = 0.1
_MAX_EARLY_GAP_S: Final = 10.0
_PACE_OVER_S: Final = 10.0
# A reading whose window ends this much later than the known one is about the next window.
_NEXT_WINDOW_S: Final = 3.0


class WaitReason(StrEnum):
    """Reason for which no request may be sent."""

    RETRY_AFTER = "retry_after"
    SERVER_QUOTA = "server_quota"
    OWN_QUOTA = "own_quota"


class Quota:
    """Quota governor of one worker."""

    def __init__(self, requests_per_minute: int) -> None:
        """Start with an unused quota of ``requests_per_minute``, at least 1."""
        self._limit = max(1, requests_per_minute)
        self._own = RateLimiter(self._limit, WINDOW_S + _GUARD_S)
        self._recent = SlidingWindow(_PACE_OVER_S)
        self._unanswered: deque[float] = deque()
        self._allowed: int | None = None
        self._counted = 0
        self._window_ends = float("-inf")
        self._blocked_until = float("-inf")
        self._early_at = float("-inf")
        self._early_gap_s = 0.0

    # --- what happened

    def sent(self, now: float) -> None:
        """Record that a request is sent."""
        self._forget(now)
        self._own.acquire(now)
        self._recent.add_now(now)
        self._unanswered.append(now)

    def sent_partial_batch(self, now: float) -> None:
        """Record a partial batch permitted by `may_send_partial_batch`; its request is recorded by `sent` as well."""
        # Counted from its due time: a loop that runs every few milliseconds would otherwise add a delay to each gap.
        due_at = self._early_at + self._early_gap_s
        self._early_at = due_at if now - due_at < self._early_gap_s else now

    def update(self, reading: RateLimitHeaders, now: float) -> None:
        """Record an answer with the quota in its headers."""
        self.answered()
        ends = now + min(reading.reset_s, WINDOW_S)
        if float(reading.reset_s).is_integer():
            ends += _ROUNDING_S
        if now >= self._window_ends or ends > self._window_ends + _NEXT_WINDOW_S:
            self._window_ends, self._counted = ends, reading.count
        else:  # answers overtake each other, so the highest count is the latest
            self._window_ends, self._counted = min(ends, self._window_ends), max(self._counted, reading.count)
        self._allowed = reading.allowed

    def answered(self) -> None:
        """Record an answer without quota headers, or a request that gets none."""
        if self._unanswered:
            self._unanswered.popleft()

    def block_until(self, until: float) -> None:
        """Send nothing before ``until`` (monotonic seconds), by ``Retry-After``. Only ever moves later."""
        self._blocked_until = max(self._blocked_until, until)

    # --- decisions

    def wait_s(self, now: float) -> float:
        """Return the seconds until the next request may be sent; 0.0: now.

        A wait for the API's window may shorten with the next answer: call it again after every `update`.
        """
        return max(0.0, *(until - now for until in self._waits(now).values()))

    def reason(self, now: float) -> WaitReason | None:
        """Return the reason with the longest wait; None: `wait_s` is zero."""
        waits = {reason: until for reason, until in self._waits(now).items() if until > now}
        return max(waits, key=lambda reason: waits[reason]) if waits else None

    def remaining(self, now: float) -> int:
        """Return how many requests may be sent now, at once."""
        if now < self._blocked_until:
            return 0
        server = self._server_remaining(now)
        own = self._own_remaining(now)
        return own if server is None else min(own, server)

    def allowed(self) -> int:
        """Return how many requests a window allows: the own limit or the API's, whichever is lower."""
        return self._limit if self._allowed is None else min(self._limit, max(1, self._allowed))

    def exhausted_in_s(self, now: float) -> float:
        """Return the seconds until the quota is used up at the present pace (formula: see the module); 60: or later."""
        if self.remaining(now) <= 0:
            return 0.0
        pace = self._recent.total(now) / _PACE_OVER_S
        counts = [(self._own_remaining(now), WINDOW_S)]
        server = self._server_remaining(now)
        if server is not None:
            ends_in_s = self._window_ends - now
            counts.append((server, ends_in_s if ends_in_s > 0 else WINDOW_S))
        return min(left / pace if left < pace * resets_in_s else WINDOW_S for left, resets_in_s in counts)

    def may_send_partial_batch(self, now: float, batches: int = 1) -> bool:
        """Return whether a partial batch may be sent now without wasting quota (formula: see the module).

        Args:
            now: the time.
            batches: number of open batches that cannot be merged, this one included.
        """
        remaining = self.remaining(now)
        if remaining <= 0:
            return False
        gap_s = min(_MAX_EARLY_GAP_S, WINDOW_S / (_EARLY_SHARE * remaining)) / max(1, batches)
        if batches * _EARLY_SHARE >= 1:
            steady_s = WINDOW_S / (_STEADY_SHARE * self.allowed())
            burst = _BURST_SHARE * _PACE_OVER_S / steady_s
            gap_s = min(gap_s, steady_s) if self._recent.total(now) < burst else steady_s
        self._early_gap_s = gap_s
        return now - self._early_at >= gap_s

    def _waits(self, now: float) -> dict[WaitReason, float]:
        waits = {WaitReason.RETRY_AFTER: self._blocked_until}
        server = self._server_remaining(now)
        if server is not None and server <= 0:
            waits[WaitReason.SERVER_QUOTA] = self._server_wait_ends(now)
        if self._own_remaining(now) <= 0:
            waits[WaitReason.OWN_QUOTA] = now + self._own.wait_s(now)
        return waits

    def _own_remaining(self, now: float) -> int:
        return self._limit - self._own.used(now)

    def _server_remaining(self, now: float) -> int | None:
        """Return how many requests the API's window has left; None: without a reading so far.

        After the end of the window its count is unknown, but the allowed number is assumed to stay until the next
        answer. With the own count alone, 300 requests could be sent where 100 are allowed.
        """
        if self._allowed is None:
            return None
        self._forget(now)
        if now < self._window_ends:
            return self._allowed - self._counted - len(self._unanswered)
        # Never zero in a new window: without a request, no answer could ever raise the allowed number again.
        return max(1, self._allowed) - sum(1 for sent_at in self._unanswered if sent_at >= self._window_ends)

    def _server_wait_ends(self, now: float) -> float:
        if now < self._window_ends:
            return self._window_ends
        # All requests of a new window are in flight: its end is unknown until a response, or until one is forgotten.
        return min(sent_at for sent_at in self._unanswered if sent_at >= self._window_ends) + WINDOW_S + _GUARD_S

    def _forget(self, now: float) -> None:
        while self._unanswered and now - self._unanswered[0] >= WINDOW_S + _GUARD_S:
            self._unanswered.popleft()
