"""A collector that is away, or hangs, must cost a service nothing: what traces and metrics share for that."""

from __future__ import annotations

import logging
import re
import threading
import time
from typing import TYPE_CHECKING, Final

from stream_scorer.telemetry.exception_text import drop_exception_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# What is left is sent within this, all signals together; what a collector has not taken by then is lost.
CLOSE_S: Final = 3.0
_QUIET_S: Final = 60.0
_QUERY: Final = re.compile(r"\?[^\s'\"]+")


class RateLimitFilter(logging.Filter):
    """Lets one line a minute through: a collector that is away is no news at every attempt."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._said_at = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the line is let through; without the client library's stack or a URL's query."""
        now = self._monotonic()
        if now - self._said_at < _QUIET_S:
            return False
        self._said_at = now
        drop_exception_text(record)
        # An endpoint's query is where some collectors have their token.
        record.msg, record.args = _QUERY.sub("?***", record.getMessage()), ()
        return True


def rate_limit_logs(loggers: Iterable[str]) -> None:
    """Let each of these loggers say one line a minute; what filtered its lines before does not any more."""
    for name in loggers:
        logging.getLogger(name).filters[:] = [RateLimitFilter()]


def close_within_limit(*closings: Callable[[], object]) -> None:
    """Close side by side, and go on after `CLOSE_S` at the latest: nobody waits for a collector at the end."""
    deadline = time.monotonic() + CLOSE_S
    threads = [threading.Thread(target=closing, name="telemetry-closing", daemon=True) for closing in closings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
