"""Clock and randomness as values that are passed in, so that tests can simulate them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Clock:
    """``monotonic`` in seconds, ``unix_ms`` in Unix milliseconds UTC, ``jitter`` in [0, 1), ``new_id`` unique."""

    monotonic: Callable[[], float]
    unix_ms: Callable[[], int]
    jitter: Callable[[], float]
    new_id: Callable[[], str]
