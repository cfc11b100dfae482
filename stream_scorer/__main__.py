"""The process of ``stream-scorer`` and ``python -m stream_scorer``, before the command line is loaded."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType

_INTERRUPTED: Final = 130
_TERMINATED: Final = 128 + signal.SIGTERM


def main() -> int:
    """Run the command of this process and return its exit code."""
    _end_on_sigterm()
    try:
        # After the handler, since it takes a while.
        from stream_scorer.cli import main as run_command  # noqa: PLC0415
        from stream_scorer.cli.unexpected import print_no_tracebacks  # noqa: PLC0415
    except KeyboardInterrupt:
        return _INTERRUPTED
    print_no_tracebacks()
    return run_command()


def _end_on_sigterm() -> None:
    """Have SIGTERM end process 1, until a command installs a handler of its own.

    The kernel drops a signal for process 1 that has no handler, so a container without an init would live on to its
    SIGKILL. For every other process the default is right. The number of the signal comes through a pipe to a thread:
    the main thread may be inside a call of the Kafka client, where Python runs no handler.
    """
    if os.getpid() != 1:
        return
    import threading  # noqa: PLC0415 - until `main` is called, Ctrl-C shows a traceback: import nothing slow before

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.signal(signal.SIGTERM, _end)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), name="sigterm", daemon=True).start()


def _end(_number: int, _frame: FrameType | None) -> None:
    os._exit(_TERMINATED)


def _watch(reading: int) -> None:
    while number := os.read(reading, 1):
        if number[0] == signal.SIGTERM and signal.getsignal(signal.SIGTERM) is _end:
            os._exit(_TERMINATED)


if __name__ == "__main__":
    sys.exit(main())
