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
# Warnings of a healthy worker: a property of the other client type, because all clients get all properties, and a
# cluster that still creates its transaction coordinator. If that takes long, the worker logs `transaction failed`.
_HEALTHY: Final = re.compile(r"CONFWARN .* will be ignored by this (consumer|producer) instance|GETPID .*: retrying")


class StartupWarningFilter(logging.Filter):
    """Filter that drops the client's warnings at the start of every healthy worker."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is kept."""
        return _HEALTHY.match(record.getMessage()) is None


def without_numbers(message: str) -> str:
    """Return a message with all numbers replaced, to compare it with others."""
    return _VARYING.sub("0", message)


class RateLimitFilter(logging.Filter):
    """Filter that drops a line if one like it was logged in the last ``interval_s`` seconds.

    Args:
        interval_s: minimum time between two such lines.
        like: returns the part of a message that such lines have in common.
        monotonic: clock in seconds.
    """

    def __init__(
        self, interval_s: float, like: Callable[[str], str], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._like = like
        self._monotonic = monotonic
        self._seen: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is kept."""
        now = self._monotonic()
        like = self._like(record.getMessage())
        seen_at = self._seen.get(like)
        if seen_at is not None and now - seen_at < self._interval_s:
            return False
        if len(self._seen) >= _MAX_KNOWN:
            self._seen.clear()
        self._seen[like] = now
        return True


class RedactionFilter(logging.Filter):
    """Filter that redacts secrets; add it after the filters that drop lines, because it scans each line."""

    def __init__(self, hide: Callable[[str], str]) -> None:
        super().__init__()
        self._hide = hide

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the line and keep it."""
        record.msg, record.args = self._hide(record.getMessage()), None
        return True


def client_logger(properties: Mapping[str, Any]) -> logging.Logger:
    """Return the logger for the clients of a service with these ``kafka.properties``.

    Each service has its own rate limits.
    """
    logger = logging.getLogger("librdkafka")
    logger.filters[:] = [
        StartupWarningFilter(),
        RateLimitFilter(_EVERY_S, without_numbers),
        RedactionFilter(property_redactor(properties)),
    ]
    return logger
