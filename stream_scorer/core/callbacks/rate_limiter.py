"""A ceiling on the callbacks of one campaign: at most so many in any minute.

Who comes over the ceiling is promised the first moment at which there is room, one after the other, and may come back
then. What counts is what was really sent: a promise that was not kept, because the worker is another one now or the
callback came late, costs the campaign nothing and never lifts the ceiling.
"""

from __future__ import annotations

from collections import deque
from typing import Final

_WINDOW_S: Final = 60.0


class RateLimiter:
    """The pace of one campaign. Times are monotonic seconds.

    Args:
        per_minute: the ceiling.
    """

    def __init__(self, per_minute: int) -> None:
        self._sent: deque[float] = deque(maxlen=per_minute)
        self._promised: deque[float] = deque(maxlen=per_minute)

    def wait_s(self, now: float) -> float:
        """Seconds until a callback may be sent that was promised nothing: behind those that were."""
        return max(self._free_at(self._sent), self._free_at(self._promised), now) - now

    def reserved_wait_s(self, now: float) -> float:
        """Seconds until a callback may be sent whose promise is due."""
        return max(self._free_at(self._sent), now) - now

    def reserve(self, at: float) -> None:
        """One will be sent at this time."""
        self._promised.append(at)

    def sent(self, now: float) -> None:
        """One is sent."""
        self._sent.append(now)

    def is_idle(self, now: float) -> bool:
        """Whether nothing is remembered that still counts."""
        return all(not times or times[-1] + _WINDOW_S <= now for times in (self._sent, self._promised))

    @staticmethod
    def _free_at(times: deque[float]) -> float:
        return times[0] + _WINDOW_S if len(times) == times.maxlen else 0.0
