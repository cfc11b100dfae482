"""Quota of the platform: a fixed window that opens with the first request after the last one has closed."""

from __future__ import annotations

from math import ceil


class QuotaWindow:
    """Request counter of the only client. Times are monotonic seconds, passed in."""

    def __init__(self) -> None:
        self._closes_at = float("-inf")
        self._count = 0

    def take(self, now: float, *, allowed: int, length_s: float) -> bool:
        """Count a request and return True if the window has room; False means 429, without a count."""
        if now >= self._closes_at:
            self._closes_at, self._count = now + length_s, 0
        if self._count >= allowed:
            return False
        self._count += 1
        return True

    def count(self, now: float) -> int:
        """Return the number of requests in the open window."""
        return self._count if now < self._closes_at else 0

    def reset_s(self, now: float, *, length_s: float) -> int:
        """Return the seconds until the count restarts, rounded up; a full window if none is open."""
        return ceil(self._closes_at - now if now < self._closes_at else length_s)
