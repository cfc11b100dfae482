"""Rate limiter for the callbacks of one campaign: a maximum in any minute.

A callback over the limit gets a reservation: the first time at which there is room, one after the other. Only sent
callbacks count. A reservation that is not used, because of a rebalance or a late callback, costs the campaign nothing
and never raises the limit.
"""

from __future__ import annotations

from collections import deque
from typing import Final

_WINDOW_S: Final = 60.0


class RateLimiter:
    """Rate limiter of one campaign. Times are monotonic seconds.

    Args:
        per_minute: the maximum in any minute.
    """

    def __init__(self, per_minute: int) -> None:
        self._sent: deque[float] = deque(maxlen=per_minute)
        self._promised: deque[float] = deque(maxlen=per_minute)

    def wait_s(self, now: float) -> float:
        """Return the seconds until a callback without a reservation may be sent: behind the reserved ones."""
        return max(self._free_at(self._sent), self._free_at(self._promised), now) - now

    def reserved_wait_s(self, now: float) -> float:
        """Return the seconds until a callback whose reservation is due may be sent."""
        return max(self._free_at(self._sent), now) - now

    def reserve(self, at: float) -> None:
        """Reserve a slot at this time."""
        self._promised.append(at)

    def sent(self, now: float) -> None:
        """Record a sent callback."""
        self._sent.append(now)

    def is_idle(self, now: float) -> bool:
        """Return whether nothing was sent or reserved in the last minute."""
        return all(not times or times[-1] + _WINDOW_S <= now for times in (self._sent, self._promised))

    @staticmethod
    def _free_at(times: deque[float]) -> float:
        return times[0] + _WINDOW_S if len(times) == times.maxlen else 0.0
