"""Control contacts: contacts that have their score and are sent again, to distinguish a bad contact from a failing API.

A control is billed and its result is not published, so at most ``MAX_PER_MINUTE`` are sent.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

from stream_scorer.core.rate_limiter import RateLimiter
from stream_scorer.core.scoring.request import control_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.scoring.batcher import BatchKey
    from stream_scorer.core.scoring.request import Request
    from stream_scorer.core.scoring.types import Contact

MAX_PER_MINUTE: Final = 20
_KEPT: Final = 8


class ControlContacts:
    """The contacts that were scored last; each is a possible control.

    Args:
        new_id: makes batch ids.
    """

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._scored: deque[Contact] = deque(maxlen=_KEPT)
        self._limit = RateLimiter(MAX_PER_MINUTE)

    def record_scored(self, contact: Contact) -> None:
        """Keep a scored contact as a control."""
        self._scored.append(contact)

    @property
    def is_empty(self) -> bool:
        """Whether no contact was scored yet."""
        return not self._scored

    def next_at(self, now: float) -> float:
        """Return when the next control can be sent; infinity before the first score."""
        return now + self._limit.wait_s(now) if self._scored else math.inf

    def take(self, key: BatchKey, now: float) -> Request | None:
        """Return a request with the next control, for the model version of ``key``; None: there is none now.

        The contact scored last comes first. An older one may have been scored before the failures began, and fail now
        like the contact in question, because it is stored in the same place.
        """
        if not self._scored or self._limit.wait_s(now) > 0:
            return None
        self._limit.acquire(now)
        contact = self._scored[-1]
        self._scored.rotate(1)
        return control_request(key, contact, self._new_id())
