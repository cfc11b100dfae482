"""Bounds of a transaction: maximum outcomes, and maximum bytes of their records.

A transaction that is too large for the network within the producer's time-outs would fail again. So the next one is
half as large, down to one outcome, until one succeeds. After a success within a small part of the time-outs the bounds
double, up to their maximum. After a slow one they stay: a larger transaction would fail.
"""

from __future__ import annotations

from typing import Final

# Far above a transaction of small records, far below the client's queue limit (256 MiB).
_MAX_BYTES: Final = 16 * 1024 * 1024
# Below it, only the outcomes are halved: so few bytes cause no time-out on a working network.
_LEAST_BYTES: Final = 64 * 1024


class TransactionBounds:
    """Bounds of the next transaction; see the module docstring.

    Args:
        outcomes: the maximum number of outcomes in a transaction.
        max_bytes: the maximum bytes (key, value and headers) of their records. One outcome may have more.

    Attributes:
        outcomes: the maximum number of outcomes in the next transaction.
        bytes: the maximum bytes of their records.
    """

    def __init__(self, outcomes: int, max_bytes: int = _MAX_BYTES) -> None:
        self._max_outcomes = self.outcomes = outcomes
        self._max_bytes = self.bytes = max_bytes

    @property
    def are_reduced(self) -> bool:
        """Whether the bounds are below their maximum, so that the rest should follow immediately."""
        return self.outcomes < self._max_outcomes or self.bytes < self._max_bytes

    def halve_outcomes(self, outcomes: int) -> None:
        """Allow half of the outcomes that were tried: the broker rejected a record among them."""
        self.outcomes = max(1, min(self.outcomes, outcomes // 2))

    def halve(self, outcomes: int, size: int) -> None:
        """Allow half of the attempted outcomes and bytes, after a time-out."""
        self.halve_outcomes(outcomes)
        self.bytes = max(min(_LEAST_BYTES, self._max_bytes), min(self.bytes, size // 2))

    def double(self) -> None:
        """Allow twice as much, up to the maximum."""
        self.outcomes = min(self._max_outcomes, 2 * self.outcomes)
        self.bytes = min(self._max_bytes, 2 * self.bytes)
