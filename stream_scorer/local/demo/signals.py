"""Handling of the signals that stop the demo: each starts the cleanup, and none interrupts it.

The first signal raises `Interrupted` in the main thread. Later ones are ignored: the cleanup takes seconds, and an
interrupted one would leave a Kafka behind.
"""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Self

from stream_scorer.runtime.signals import stop_signals

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType


class Interrupted(KeyboardInterrupt):
    """A signal ends the program. ``exit_code`` is the shells' convention: 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Interrupts(AbstractContextManager["Interrupts"]):
    """Signal handlers of the main thread, active until the end of the ``with`` block."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._arrived: int | None = None
        self._deferred = False
        self._shielded = False

    def __enter__(self) -> Self:
        for number in stop_signals():
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer signals to the end of the block, for steps that must not be separated, such as a start and its record.

        Raises:
            Interrupted: at the end, if a signal has arrived meanwhile.
        """
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        self.check()

    @property
    def arrived(self) -> int | None:
        """The signal that has arrived first; None: none has."""
        return self._arrived

    def check(self) -> None:
        """Raise a signal that was deferred, or whose exception was suppressed by other code.

        Raises:
            Interrupted: a signal has arrived.
        """
        if self._arrived is not None and not self._shielded:
            raise Interrupted(self._arrived)

    def shield(self) -> None:
        """Ignore all signals from now on, during the cleanup."""
        self._shielded = True

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._shielded or self._arrived is not None:
            return
        self._arrived = number
        if not self._deferred:
            raise Interrupted(number)
