"""What the signals do to a service that runs until it is told to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, Protocol

from stream_scorer.errors import StreamScorerError

# Over scoring.shutdown_timeout_s: leaving the group, closing connections and the collectors' 3 s have to fit in here,
# or a clean end with a collector that hangs would be told as a failed one.
CLOSING_S: Final = 8.0


class Log(Protocol):
    """A structlog logger, as far as it is used here."""

    def error(self, event: str, **fields: Any) -> Any:
        """It does not go on."""


@contextmanager
def end_told(log: Log) -> Iterator[None]:
    """Have an error that ends the service be a log line too: where lines are collected, nobody reads plain text."""
    try:
        yield
    except Exception as error:
        known = isinstance(error, StreamScorerError)
        said = str(error) if known else f"unexpected {type(error).__name__}: {error}"
        log.error("stopped", detail=said)  # noqa: TRY400 - one line; --debug shows the traceback
        raise


def obey_signals(stop: Callable[[], None], drain_s: float) -> None:
    """Have the first SIGTERM or Ctrl-C call ``stop``; the second, or the end of ``drain_s``, ends the process at once.

    That is safe: what was not committed is read again by the next worker.
    """
    asked = threading.Event()

    def obey(number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            os._exit(128 + number)
        asked.set()
        stop()
        timer = threading.Timer(drain_s + CLOSING_S, _give_up)
        timer.daemon = True
        timer.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, obey)


def _give_up() -> None:
    print("stream-scorer: closing took too long; what is not committed is read again", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(1)
