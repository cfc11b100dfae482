"""Shutdown of a service: signal handlers and time limit."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Final, Self

from stream_scorer.cli.unexpected import kafka_error, unexpected_line
from stream_scorer.errors import StreamScorerError
from stream_scorer.runtime.signals import stop_signals

if TYPE_CHECKING:
    from stream_scorer.runtime.loop_observer import Log

# In addition to scoring.shutdown_timeout_s: time to leave the group, close connections and flush collectors (3 s).
# With less, a clean shutdown with a hanging collector would be reported as a failure.
CLOSING_S: Final = 8.0


@contextmanager
def log_fatal_errors(log: Log) -> Iterator[None]:
    """Log an error that ends the service as an event, since log collectors do not parse plain text."""
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
    """Time limit of a service's shutdown, whatever its cause; after it the process exits.

    That is safe: the next worker reads uncommitted records again. A context manager around the service: leaving it
    cancels the limit.

    Args:
        drain_s: how long the service waits for requests in flight.
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
        """Start the limit. Only the first call counts."""
        if self._begun.acquire(blocking=False):
            self._timer.start()

    def watch(self, stopping: threading.Event) -> None:
        """Start the limit as soon as ``stopping`` is set, by a signal or by an error that ends the service."""

        def wait() -> None:
            stopping.wait()
            self.begin()

        threading.Thread(target=wait, name="end-limit", daemon=True).start()


def install_signal_handlers(stop: Callable[[], None]) -> None:
    """Let the first of the `stop_signals` call ``stop``; a second SIGTERM or Ctrl-C ends the process immediately.

    A second SIGHUP does not: shell and kernel both send one when a terminal ends.
    """
    received: list[int] = []
    first: SimpleQueue[int] = SimpleQueue()

    def obey(number: int, _frame: FrameType | None) -> None:
        # It takes no lock, and neither does ``put``: the thread that it interrupts may hold it, and would wait for
        # itself.
        if not received:
            received.append(number)
            first.put(number)
        elif number != signal.SIGHUP:
            os._exit(128 + number)

    def wait() -> None:
        first.get()
        stop()

    threading.Thread(target=wait, name="stop-signal", daemon=True).start()
    for number in stop_signals():
        signal.signal(number, obey)


def _give_up() -> None:
    print("stream-scorer: closing took too long; what is not committed is read again", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(1)
