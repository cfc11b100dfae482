"""What librdkafka says, thinned out: while a broker is away it repeats itself twenty times a second."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY_S: Final = 30.0
_VARYING: Final = re.compile(r"\d+")
_MAX_KNOWN: Final = 1_000


class OncePerHalfMinute(logging.Filter):
    """Lets a line through only if its like (the same but for numbers) was not let through in the last 30 s."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._seen: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the line is let through."""
        now = self._monotonic()
        like = _VARYING.sub("0", record.getMessage())
        seen_at = self._seen.get(like)
        if seen_at is not None and now - seen_at < _EVERY_S:
            return False
        if len(self._seen) >= _MAX_KNOWN:
            self._seen.clear()
        self._seen[like] = now
        return True


def client_logger() -> logging.Logger:
    """The logger for the clients of a service; each service has its own memory of what was said."""
    logger = logging.getLogger("librdkafka")
    logger.filters[:] = [OncePerHalfMinute()]
    return logger
