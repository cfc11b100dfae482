"""Ctrl-C and other stops of a command: noted by a handler, and acted on where nothing of the client is interrupted."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stream_scorer.runtime.signals import stop_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def interrupting(interrupt: Callable[[], None]) -> Iterator[None]:
    """Let the `stop_signals` call a function: an exception raised inside the client's code would be lost."""
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in stop_signals()}
    for number in before:
        signal.signal(number, lambda _number, _frame: interrupt())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Interruption:
    """Interruption that is noted first, and raised at the next `checkpoint`."""

    def __init__(self) -> None:
        self._is_noted = False

    def note(self) -> None:
        """Note it; safe in a signal's handler."""
        self._is_noted = True

    def checkpoint(self) -> None:
        """Raise what was noted.

        Raises:
            KeyboardInterrupt: the command was interrupted.
        """
        if self._is_noted:
            raise KeyboardInterrupt
