"""Limits on log lines and closing time for exporters whose collector is down or hangs; shared by metrics and traces."""

from __future__ import annotations

import logging
import re
import threading
import time
from typing import TYPE_CHECKING, Final

from stream_scorer.kafka.client.logs import RateLimitFilter
from stream_scorer.telemetry.exception_text import drop_exception_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Exporters of all signals together get this long to send buffered data; the rest is lost.
CLOSE_S: Final = 3.0
_QUIET_S: Final = 60.0
_QUERY: Final = re.compile(r"\?[^\s'\"]+")


class ExporterTextFilter(logging.Filter):
    """Filter that removes exception text and URL queries: some collectors get their token in the endpoint's query."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the line and keep it."""
        drop_exception_text(record)
        record.msg, record.args = _QUERY.sub("?***", record.getMessage()), ()
        return True


def rate_limit_logs(loggers: Iterable[str]) -> None:
    """Limit each of these loggers to one line a minute, because an unreachable collector fails at every attempt.

    Replaces their other filters.
    """
    for name in loggers:
        logging.getLogger(name).filters[:] = [RateLimitFilter(_QUIET_S, lambda _: ""), ExporterTextFilter()]


def close_within_limit(*closings: Callable[[], object]) -> None:
    """Run the callables in parallel and return after `CLOSE_S` at the latest, whether or not a collector answers."""
    deadline = time.monotonic() + CLOSE_S
    threads = [threading.Thread(target=closing, name="telemetry-closing", daemon=True) for closing in closings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
