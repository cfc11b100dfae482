"""How many requests may go out, and when: the lower of our own count and what the API says.

Own count: at most ``requests_per_minute`` in any 60 s, and a little longer (`_GUARD_S`), because two requests sent 60 s
apart may arrive closer together. The API's count: every answer says how many requests its present window has counted,
how many it allows, and in how many seconds it starts anew. Requests that are still under way, which the API may or may
not have counted, are added to its count; so the last few of a window go out only as the answers before them come in,
and none of them earns a 429.

``reset`` comes in whole seconds, and nobody says how it was rounded. Every reading bounds the window's end from above
(``now + reset``, and one second more for a number without fraction); the least of these bounds is waited for. That
costs at most a second of a minute: at least 97 % of the quota is used.

Early batches. A batch that is not full costs the same request as a full one. Sent whenever ``linger`` has passed, five
contacts a second would burn all 300 requests of a minute. So batches that close early take at most a fifth of what
remains, spread evenly over the window::

    gap = min(10 s, 60 s / (0.2 * remaining))

is kept between two of them: 1 s with 300 requests left, 10 s with 30 left. A lone contact after a quiet time goes out
as soon as it has lingered, and a steady trickle sends about 50 requests a minute, each with all that has come in since.

Events of one contact id cannot share a request, so where they come often, many batches stand open at once. However long
those wait for company, they take as many requests as there are of them: the gap is divided by their number. Two batches
are sent twice as often as one. The same holds for the batches of several model versions. From five on they may use the
quota up, evenly: after a short burst 98 % of it, so that no pause follows.

Forecast. `Quota.exhausted_in_s` says when the quota will be used up at the present pace, once for each of both counts::

    pace      = requests of the last 10 s / 10 s
    used up   = remaining / pace, if that comes before the count starts anew (at the end of the API's window; for our
                own count after 60 s), else 60 s

and the lower of both is given; 0 where nothing remains.

Pure: one thread uses it, and ``now`` is passed in, in monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from stream_scorer.core.records import RateLimitHeaders

WINDOW_S: Final = 60.0
_GUARD_S: Final = 0.5
_ROUNDING_S: Final = 1.0
_EARLY_SHARE: Final = 0.2
_STEADY_SHARE: Final = 0.98
_BURST_SHARE: Final = 0.1
_MAX_EARLY_GAP_S: Final = 10.0
_PACE_OVER_S: Final = 10.0
# A reading whose window ends this much later than the known one speaks of the next window.
_NEXT_WINDOW_S: Final = 3.0


class WaitReason(StrEnum):
    """Why no request may be sent."""

    RETRY_AFTER = "retry_after"
    SERVER_QUOTA = "server_quota"
    OWN_QUOTA = "own_quota"


class Quota:
    """The quota governor of one worker."""

    def __init__(self, requests_per_minute: int) -> None:
        """Start with an unused quota of ``requests_per_minute``, at least 1."""
        self._limit = max(1, requests_per_minute)
        self._sent: deque[float] = deque()
        self._recent: deque[float] = deque()
        self._unanswered: deque[float] = deque()
        self._allowed: int | None = None
        self._counted = 0
        self._window_ends = float("-inf")
        self._blocked_until = float("-inf")
        self._early_at = float("-inf")
        self._early_gap_s = 0.0

    # --- what happened

    def sent(self, now: float) -> None:
        """A request goes out."""
        self._forget(now)
        self._sent.append(now)
        self._recent.append(now)
        self._unanswered.append(now)

    def sent_partial_batch(self, now: float) -> None:
        """A batch that was not full has been closed on `may_close_early`; its request is reported to `sent` as well."""
        # Counted from the time it was due: a loop that runs every few milliseconds would otherwise lose a part of each.
        due_at = self._early_at + self._early_gap_s
        self._early_at = due_at if now - due_at < self._early_gap_s else now

    def update(self, reading: RateLimitHeaders, now: float) -> None:
        """An answer has come, and says this of the quota."""
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
        """An answer without a reading has come, or none will."""
        if self._unanswered:
            self._unanswered.popleft()

    def block_until(self, until: float) -> None:
        """The API asked not to be asked before ``until`` (monotonic seconds). Only ever moves later."""
        self._blocked_until = max(self._blocked_until, until)

    # --- what follows

    def wait_s(self, now: float) -> float:
        """Return the seconds until the next request may be sent; 0.0: now.

        The wait for the API's window may turn out shorter when the next answer comes in: ask again after every `learn`.
        """
        return max(0.0, *(until - now for until in self._waits(now).values()))

    def reason(self, now: float) -> WaitReason | None:
        """Return why `wait_s` is not zero: the cause that lasts longest; None where it is zero."""
        waits = {reason: until for reason, until in self._waits(now).items() if until > now}
        return max(waits, key=lambda reason: waits[reason]) if waits else None

    def remaining(self, now: float) -> int:
        """Return how many requests may be sent now at once."""
        if now < self._blocked_until:
            return 0
        server = self._server_remaining(now)
        own = self._own_remaining(now)
        return own if server is None else min(own, server)

    def allowed(self) -> int:
        """Return how many requests a window allows: our own limit or the API's, whichever is lower."""
        return self._limit if self._allowed is None else min(self._limit, max(1, self._allowed))

    def exhausted_in_s(self, now: float) -> float:
        """Return the seconds until the quota is used up at the present pace (formula: see the module); 60: later."""
        if self.remaining(now) <= 0:
            return 0.0
        pace = len(self._recent) / _PACE_OVER_S
        counts = [(self._own_remaining(now), WINDOW_S)]
        server = self._server_remaining(now)
        if server is not None:
            ends_in_s = self._window_ends - now
            counts.append((server, ends_in_s if ends_in_s > 0 else WINDOW_S))
        return min(left / pace if left < pace * anew_in_s else WINDOW_S for left, anew_in_s in counts)

    def may_send_partial_batch(self, now: float, batches: int = 1) -> bool:
        """Tell whether a batch that is not full may be sent now without wasting quota (formula: see the module).

        Args:
            now: the time.
            batches: how many stand open and cannot be put together, this one included.
        """
        remaining = self.remaining(now)
        if remaining <= 0:
            return False
        gap_s = min(_MAX_EARLY_GAP_S, WINDOW_S / (_EARLY_SHARE * remaining)) / max(1, batches)
        if batches * _EARLY_SHARE >= 1:
            steady_s = WINDOW_S / (_STEADY_SHARE * self.allowed())
            burst = _BURST_SHARE * _PACE_OVER_S / steady_s
            gap_s = min(gap_s, steady_s) if len(self._recent) < burst else steady_s
        self._early_gap_s = gap_s
        return now - self._early_at >= gap_s

    def _waits(self, now: float) -> dict[WaitReason, float]:
        waits = {WaitReason.RETRY_AFTER: self._blocked_until}
        server = self._server_remaining(now)
        if server is not None and server <= 0:
            waits[WaitReason.SERVER_QUOTA] = self._window_ends
        if self._own_remaining(now) <= 0:
            waits[WaitReason.OWN_QUOTA] = self._sent[-self._limit] + WINDOW_S + _GUARD_S
        return waits

    def _own_remaining(self, now: float) -> int:
        self._forget(now)
        return self._limit - len(self._sent)

    def _server_remaining(self, now: float) -> int | None:
        """What the API's window has left for us; None where nothing is known of the present window.

        After the window's end its count is unknown, but what it allows is taken to stay the same until an answer says
        so: our own count of the last minute would else let 300 out where 100 are allowed.
        """
        if self._allowed is None:
            return None
        self._forget(now)
        if now < self._window_ends:
            return self._allowed - self._counted - len(self._unanswered)
        # Never zero in a new window: without a request no answer could ever say that more is allowed again.
        return max(1, self._allowed) - sum(1 for sent_at in self._unanswered if sent_at >= self._window_ends)

    def _forget(self, now: float) -> None:
        counted_s = WINDOW_S + _GUARD_S
        for times, kept_s in ((self._sent, counted_s), (self._unanswered, counted_s), (self._recent, _PACE_OVER_S)):
            while times and now - times[0] >= kept_s:
                times.popleft()
