"""Rate limiter over a sliding window: at most so many units in any 60 s. Pure: monotonic seconds are passed in.

One mechanism limits the contacts that are sent, the own count of requests, control contacts, and the callbacks of a
campaign. The quota that the API counts itself is a fixed window; see ``genesys.request_quota``.
"""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 60.0


class SlidingWindow:
    """Sum of the amounts of the last ``window_s`` seconds."""

    __slots__ = ("_entries", "_total", "_window_s")

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s: Final = window_s
        self._entries: deque[tuple[float, int]] = deque()
        self._total = 0

    def add(self, at: float, amount: int = 1) -> None:
        """Add an amount at a time not before the last one's, which may be in the future."""
        self._entries.append((at, amount))
        self._total += amount

    def add_now(self, now: float, amount: int = 1) -> None:
        """Add an amount, and forget what is older than the window: it is bounded without a call of ``total``."""
        self._drop_before(now)
        self.add(now, amount)

    def total(self, now: float) -> int:
        """Return the sum of the window that ends now."""
        self._drop_before(now)
        return self._total

    def _drop_before(self, now: float) -> None:
        while self._entries and self._entries[0][0] + self._window_s <= now:
            self._total -= self._entries.popleft()[1]

    def wait_s(self, excess: int, now: float) -> float:
        """Return the seconds until at least ``excess`` of the present sum has left the window."""
        wait_s = 0.0
        for added_at, amount in self._entries:
            if excess <= 0:
                break
            excess -= amount
            wait_s = added_at + self._window_s - now
        return wait_s


class RateLimiter:
    """Limiter of the units in any ``window_s`` seconds.

    Args:
        limit: the maximum, at least 1; None: there is none, and nothing is counted.
        window_s: length of the window.
    """

    __slots__ = ("_window", "limit")

    def __init__(self, limit: int | None, window_s: float = WINDOW_S) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"the limit is {limit}: give at least 1, or None")
        self.limit: Final = limit
        self._window = SlidingWindow(window_s)

    def acquire(self, now: float, amount: int = 1) -> None:
        """Count units, whether or not they are within the limit."""
        if self.limit is not None:
            self._window.add_now(now, amount)

    def reserve(self, at: float) -> None:
        """Count a unit at a time in the future."""
        self._window.add(at)

    def used(self, now: float) -> int:
        """Return the units of the window that ends now; 0 without a limit."""
        return self._window.total(now)

    def wait_s(self, now: float, amount: int = 1) -> float:
        """Return the seconds until so many units are within the limit; 0.0: now.

        Raises:
            ValueError: the amount is larger than the limit itself.
        """
        if self.limit is None:
            return 0.0
        if amount > self.limit:
            raise ValueError(f"{amount} units are over the limit of {self.limit}")
        return self._window.wait_s(self._window.total(now) + amount - self.limit, now)


class ReservingRateLimiter:
    """Rate limiter with reservations: a unit over the limit gets the first free time, one after the other.

    Only what is sent counts. A reservation that is not used, because of a rebalance or a late callback, costs nothing
    and never raises the limit.
    """

    __slots__ = ("_reserved", "_sent")

    def __init__(self, limit: int) -> None:
        self._sent = RateLimiter(limit)
        self._reserved = RateLimiter(limit)

    def wait_s(self, now: float) -> float:
        """Return the seconds until a unit without a reservation may be sent: behind the reserved ones."""
        return max(self._sent.wait_s(now), self._reserved.wait_s(now))

    def reserved_wait_s(self, now: float) -> float:
        """Return the seconds until a unit whose reservation is due may be sent."""
        return self._sent.wait_s(now)

    def reserve(self, at: float) -> None:
        """Reserve a slot at this time."""
        self._reserved.reserve(at)

    def sent(self, now: float) -> None:
        """Count a sent unit."""
        self._sent.acquire(now)

    def is_idle(self, now: float) -> bool:
        """Return whether nothing was sent or reserved in the last minute."""
        return not (self._sent.used(now) or self._reserved.used(now))
