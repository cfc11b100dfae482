"""Adaptive batch size: maximum contacts of a model version's next request.

A time-out, a cut response or a 413 may mean that requests are too large. The halves are always sent. The size itself
becomes n/2 after three such failures in a row from requests of n contacts, or after one 413. Requests in flight
together count once. Each success doubles the size up to its limit. The limit is n/2 once a smaller request has
succeeded after the failures; an outage, in which none succeeds, sets none. A request over the limit is tried again
after 1 minute, then after 2, 4, up to 60.

Between the first failure and the third, one request over n/2 is in flight at a time: each of them may be billed.
"""

from __future__ import annotations

from typing import Final

_FAILURES: Final = 3
_FIRST_TRIAL_S: Final = 60.0
_MAX_TRIAL_S: Final = 3_600.0


class BatchSize:
    """Batch size of one model version. Pure: monotonic seconds are passed in.

    Args:
        maximum: the size without any failure, ``scoring.max_contacts``.
    """

    def __init__(self, maximum: int) -> None:
        self.maximum: Final = maximum
        self.size = maximum
        self.limit = maximum
        self._suspected = 0
        self._failures = 0
        self._failed_at = float("-inf")
        self._trial_s = _FIRST_TRIAL_S
        self._trial_at = float("inf")
        self._reduced_from = 0

    def next_size(self, now: float, largest_in_flight: int) -> int:
        """Return the maximum contacts of the next request.

        Args:
            now: the time.
            largest_in_flight: contacts in the largest request of the version in flight; 0: there is none.
        """
        if self._failures and self.size >= self._suspected and 2 * largest_in_flight > self._suspected:
            return max(1, self._suspected // 2)
        if self.size == self.limit < self.maximum and now >= self._trial_at:
            self._trial_at = now + self._trial_s
            return min(self.maximum, 2 * self.limit)
        return self.size

    def restart(self) -> None:
        """Start from a single contact: the circuit breaker is half-open."""
        self.size = 1
        self._failures = self._suspected = self._reduced_from = 0

    def record_success(self, contacts: int, now: float) -> None:
        """Count a request with usable results; ``contacts``: its size."""
        if self._failures and contacts >= self._suspected:
            self._failures = self._suspected = 0
        if self._reduced_from:
            if contacts < self._reduced_from:
                self.limit = max(1, self._reduced_from // 2)
                self._trial_at = now + self._trial_s
            self._reduced_from = 0
        if contacts > self.limit:
            self.limit = min(self.maximum, max(contacts, 2 * self.limit))
            self._trial_s = _FIRST_TRIAL_S
            self._trial_at = now + self._trial_s
        self.size = min(self.limit, 2 * self.size)

    def record_too_large(self, contacts: int, sent_at: float, now: float, *, is_certain: bool) -> None:
        """Count a time-out, a cut response or (``is_certain``) a 413; ``contacts``: the size of the request."""
        if contacts < 2:  # noqa: PLR2004 - a single contact cannot be divided
            return
        if contacts > self.limit:
            self._trial_s = min(_MAX_TRIAL_S, 2 * self._trial_s)
            self._trial_at = now + self._trial_s
            return
        if sent_at < self._failed_at:
            return
        self._failed_at = now
        if contacts != self._suspected:
            self._suspected, self._failures = contacts, 0
        self._failures += 1
        if is_certain or self._failures >= _FAILURES:
            self.size = min(self.size, max(1, contacts // 2))
            self._reduced_from = contacts
            self._failures = self._suspected = 0
