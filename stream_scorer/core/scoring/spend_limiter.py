"""Spend limiter: how many contacts may be sent in any 60 s. The platform bills each one, retries too."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 60.0


class SpendLimiter:
    """Limiter of the contacts sent in 60 s. Pure: ``now`` is passed in, in monotonic seconds.

    Args:
        max_contacts_per_minute: the ceiling, at least 1; None: there is none, and nothing is counted.
    """

    def __init__(self, max_contacts_per_minute: int | None) -> None:
        if max_contacts_per_minute is not None and max_contacts_per_minute < 1:
            raise ValueError(f"max_contacts_per_minute is {max_contacts_per_minute}: give at least 1, or None")
        self.ceiling: Final = max_contacts_per_minute
        self._sent: deque[tuple[float, int]] = deque()
        self._spent = 0

    def acquire(self, contacts: int, now: float) -> None:
        """Record a request with this number of contacts."""
        if self.ceiling is None:
            return
        self._forget(now)
        self._sent.append((now, contacts))
        self._spent += contacts

    def wait_s(self, contacts: int, now: float) -> float:
        """Return the seconds until a request with this number of contacts is within the ceiling; 0.0: now.

        Raises:
            ValueError: the request is larger than the ceiling itself.
        """
        if self.ceiling is None:
            return 0.0
        if contacts > self.ceiling:
            raise ValueError(f"a request about {contacts} contacts is over the ceiling of {self.ceiling} a minute")
        self._forget(now)
        excess = self._spent + contacts - self.ceiling
        wait_s = 0.0
        for sent_at, amount in self._sent:
            if excess <= 0:
                break
            excess -= amount
            wait_s = sent_at + WINDOW_S - now
        return wait_s

    def _forget(self, now: float) -> None:
        while self._sent and self._sent[0][0] + WINDOW_S <= now:
            self._spent -= self._sent.popleft()[1]
