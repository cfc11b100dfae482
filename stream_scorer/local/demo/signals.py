"""Ctrl-C, SIGTERM and a closed terminal, so that each of them cleans up and none can cut the cleaning short.

The first signal raises `Interrupted` wherever the program is. Every later one is ignored: by then things are being
stopped, which takes seconds, and half of it would leave a Kafka behind.
"""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asks the program to end. ``exit_code`` is what shells expect then: 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Interrupts(AbstractContextManager["Interrupts"]):
    """Takes the signals over, in the main thread, until the end of the ``with`` block."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._arrived: int | None = None
        self._deferred = False
        self._shielded = False

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            # Who starts it with nohup wants it to outlive the terminal.
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a signal wait until the end of the block: for what must not be torn apart, such as start and note down.

        Raises:
            Interrupted: at the end, when one arrived meanwhile.
        """
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        self.check()

    @property
    def arrived(self) -> int | None:
        """The signal that asked for the end; None: none has."""
        return self._arrived

    def check(self) -> None:
        """Raise what arrived while it could not be raised, or where somebody else's code swallowed it.

        Raises:
            Interrupted: a signal has arrived.
        """
        if self._arrived is not None and not self._shielded:
            raise Interrupted(self._arrived)

    def shield(self) -> None:
        """Ignore every signal from now on: the cleaning up begins."""
        self._shielded = True

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._shielded or self._arrived is not None:
            return
        self._arrived = number
        if not self._deferred:
            raise Interrupted(number)
