"""What the signals do to a service that runs until it is told to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

# Over scoring.shutdown_timeout_s: leaving the group and closing connections has to fit in here.
_CLOSING_S: Final = 4.0


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
        timer = threading.Timer(drain_s + _CLOSING_S, _give_up)
        timer.daemon = True
        timer.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, obey)


def _give_up() -> None:
    print("stream-scorer: closing took too long; what is not committed is read again", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(1)
