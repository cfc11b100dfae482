"""Limit of rejections: how many contacts may be rejected for one status and model version in ten minutes.

The limit is 20 contacts, and ``scoring.max_refused_share`` of those finished, for the same status and version. Above it
the contacts are probably not the cause. Further ones are held: they wait in the last retry topic.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import Final, NamedTuple

WINDOW_S: Final = 600.0
_MIN_CONTACTS: Final = 20
_RESOLUTION_S: Final = 1.0


class Cause(NamedTuple):
    """Key of the rejection counts: the reason, the HTTP status and the model version."""

    reason: str
    status: int | None
    model_version: str | None

    def __str__(self) -> str:
        return f"{self.reason}/{'-' if self.status is None else self.status}/{self.model_version or ''}"


class Verdict(Enum):
    """Verdict on a contact that would be rejected. ``WARN``: rejected, and worth an alert."""

    REJECT = auto()
    WARN = auto()
    HOLD = auto()


class RefusalLimit:
    """Counter of finished and rejected contacts. Pure: ``now`` is passed in, in monotonic seconds.

    Args:
        max_share: ``scoring.max_refused_share``; 1 rejects whatever the share.
    """

    def __init__(self, max_share: float) -> None:
        self._max_share = max_share
        self._finished: deque[tuple[float, int]] = deque()
        self._finished_sum = 0
        self._refused: dict[Cause, deque[float]] = {}

    @property
    def is_on(self) -> bool:
        """Whether contacts can be held."""
        return self._max_share < 1.0

    def record_finished(self, contacts: int, now: float) -> None:
        """Count contacts with an outcome."""
        if not contacts:
            return
        self._forget(now)
        self._finished_sum += contacts
        if self._finished and now - self._finished[-1][0] < _RESOLUTION_S:
            at, before = self._finished[-1]
            self._finished[-1] = (at, before + contacts)
        else:
            self._finished.append((now, contacts))

    def refused(self, cause: Cause, now: float) -> Verdict:
        """Count a contact that would be rejected, and return the verdict on it."""
        self._forget(now)
        times = self._refused.setdefault(cause, deque())
        times.append(now)
        while now - times[0] > WINDOW_S:
            times.popleft()
        if len(times) <= _MIN_CONTACTS:
            return Verdict.REJECT
        if self.is_on and len(times) > self._max_share * (self._finished_sum + len(times)):
            return Verdict.HOLD
        return Verdict.WARN

    def count(self, cause: Cause) -> int:
        """Return how many contacts would have been rejected for a cause in the last ten minutes."""
        return len(self._refused.get(cause, ()))

    def _forget(self, now: float) -> None:
        while self._finished and now - self._finished[0][0] > WINDOW_S:
            self._finished_sum -= self._finished.popleft()[1]
        for cause, times in list(self._refused.items()):
            if now - times[-1] > WINDOW_S:
                del self._refused[cause]
