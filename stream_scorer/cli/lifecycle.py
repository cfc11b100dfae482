"""The end of a service: what the signals do, and how long it may take."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, Protocol, Self

from stream_scorer.cli.unexpected import kafka_error, unexpected_line
from stream_scorer.errors import StreamScorerError

# Over scoring.shutdown_timeout_s: leaving the group, closing connections and the collectors' 3 s have to fit in here,
# or a clean end with a collector that hangs would be told as a failed one.
CLOSING_S: Final = 8.0


class Log(Protocol):
    """A structlog logger, as far as it is used here."""

    def error(self, event: str, **fields: Any) -> Any:
        """It does not go on."""


@contextmanager
def log_fatal_errors(log: Log) -> Iterator[None]:
    """Have an error that ends the service be a log line too: where lines are collected, nobody reads plain text."""
    try:
        yield
    except StreamScorerError as error:
        log.error("stopped", detail=str(error))  # noqa: TRY400 - one line; --debug shows the traceback
        raise
    except Exception as error:
        known = kafka_error(error)
        detail = unexpected_line(error) if known is None else str(known)
        log.error("stopped", detail=detail)  # noqa: TRY400 - see above
        raise


class EndLimit:
    """The time that the end of a service may take, whatever its cause; then the process ends where it stands.

    That is safe: what was not committed is read again by the next worker. A context manager around the service: when it
    is left, the service has ended in time.

    Args:
        drain_s: how long the service waits for what is in flight.
    """

    def __init__(self, drain_s: float) -> None:
        self._timer = threading.Timer(drain_s + CLOSING_S, _give_up)
        self._timer.daemon = True
        self._begun = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def begin(self) -> None:
        """The end begins. Only the first call counts; safe in a signal handler."""
        if self._begun.acquire(blocking=False):
            self._timer.start()

    def watch(self, stopping: threading.Event) -> None:
        """Have the limit begin as soon as ``stopping`` is set: by a signal, or by the service when an error ends it."""

        def wait() -> None:
            stopping.wait()
            self.begin()

        threading.Thread(target=wait, name="end-limit", daemon=True).start()

    def install_signal_handlers(self, stop: Callable[[], None]) -> None:
        """Have the first SIGTERM or Ctrl-C call ``stop``; the second ends the process immediately."""
        stopped = threading.Event()

        def obey(number: int, _frame: FrameType | None) -> None:
            if stopped.is_set():
                os._exit(128 + number)
            stopped.set()
            self.begin()
            stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, obey)


def _give_up() -> None:
    print("stream-scorer: closing took too long; what is not committed is read again", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(1)
