"""The platform's quota: a fixed window that opens with the first request after the last one has closed."""

from __future__ import annotations

from math import ceil


class QuotaWindow:
    """Counts the requests of the one client there is. Times are monotonic seconds and come from outside."""

    def __init__(self) -> None:
        self._closes_at = float("-inf")
        self._count = 0

    def take(self, now: float, *, allowed: int, length_s: float) -> bool:
        """Counts a request if the window still has room for it; False means 429, and nothing was counted."""
        if now >= self._closes_at:
            self._closes_at, self._count = now + length_s, 0
        if self._count >= allowed:
            return False
        self._count += 1
        return True

    def count(self, now: float) -> int:
        """Requests counted in the window that is open now."""
        return self._count if now < self._closes_at else 0

    def reset_s(self, now: float, *, length_s: float) -> int:
        """Whole seconds until the count starts again, rounded up; a full window where none is open."""
        return ceil(self._closes_at - now if now < self._closes_at else length_s)
