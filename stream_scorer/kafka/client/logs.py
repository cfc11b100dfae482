"""Logger of librdkafka, redacted and rate-limited: it repeats a lost connection twenty times a second."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Any, Final

from stream_scorer.redaction.properties import property_redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_EVERY_S: Final = 30.0
_VARYING: Final = re.compile(r"\d+")
_MAX_KNOWN: Final = 1_000
# Of a healthy worker: a property of the other client, which is given to all of them, and a cluster that is still making
# its coordinator of transactions. If that takes long, the worker logs it itself (`transaction failed`).
_HEALTHY: Final = re.compile(r"CONFWARN .* will be ignored by this (consumer|producer) instance|GETPID .*: retrying")


class NotOfHealthyWorkers(logging.Filter):
    """Drops warnings of the client that every healthy worker would begin with."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is let through."""
        return _HEALTHY.match(record.getMessage()) is None


class RateLimitFilter(logging.Filter):
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


class RedactionFilter(logging.Filter):
    """Takes secrets out of the lines; to stand after what may drop them, since it looks through each whole."""

    def __init__(self, hide: Callable[[str], str]) -> None:
        super().__init__()
        self._hide = hide

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the line."""
        record.msg, record.args = self._hide(record.getMessage()), None
        return True


def client_logger(properties: Mapping[str, Any]) -> logging.Logger:
    """The logger for the clients of a service with these ``kafka.properties``.

    Each service has its own memory of what was said.
    """
    logger = logging.getLogger("librdkafka")
    logger.filters[:] = [NotOfHealthyWorkers(), RateLimitFilter(), RedactionFilter(property_redactor(properties))]
    return logger
