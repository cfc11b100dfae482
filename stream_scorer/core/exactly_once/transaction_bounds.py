"""Bounds of a transaction: how many outcomes it may hold, and how many bytes of records they belong to.

A transaction that the line cannot carry within the producer's time-outs fails, and would fail again. So the next one
is half as large, down to one outcome, until one succeeds. After a success that took a small part of the time-outs the
bounds double, up to their maximum. After a slow one they stay: the larger transaction would fail.
"""

from __future__ import annotations

from typing import Final

# Far above a transaction of small records, far below what the client's queue takes (256 MiB).
_MAX_BYTES: Final = 16 * 1024 * 1024
# Below it, the outcomes alone are halved: so few bytes do not fail by time on a line that works at all.
_LEAST_BYTES: Final = 64 * 1024


class TransactionBounds:
    """See the module's text.

    Args:
        outcomes: the maximum of outcomes in a transaction.
        max_bytes: the maximum of bytes (key, value and headers) of the records that they belong to. One outcome may
            have more.

    Attributes:
        outcomes: how many outcomes the next transaction may hold.
        bytes: how many bytes their records may have.
    """

    def __init__(self, outcomes: int, max_bytes: int = _MAX_BYTES) -> None:
        self._max_outcomes = self.outcomes = outcomes
        self._max_bytes = self.bytes = max_bytes

    @property
    def are_reduced(self) -> bool:
        """Whether a transaction may hold less than the maximum, so that the rest should follow immediately."""
        return self.outcomes < self._max_outcomes or self.bytes < self._max_bytes

    def halve_outcomes(self, outcomes: int) -> None:
        """Allow half of the outcomes that were tried: the broker rejected a record among them."""
        self.outcomes = max(1, min(self.outcomes, outcomes // 2))

    def halve(self, outcomes: int, size: int) -> None:
        """Allow half of what was tried, in outcomes and bytes: it was not written in time."""
        self.halve_outcomes(outcomes)
        self.bytes = max(min(_LEAST_BYTES, self._max_bytes), min(self.bytes, size // 2))

    def double(self) -> None:
        """Allow twice as much, up to the maximum."""
        self.outcomes = min(self._max_outcomes, 2 * self.outcomes)
        self.bytes = min(self._max_bytes, 2 * self.bytes)
