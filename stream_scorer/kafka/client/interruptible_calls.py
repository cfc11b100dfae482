"""Calls at the start of a service that may hang, interruptible by a stop."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_POLL_S: Final = 0.1


class StoppedError(Exception):
    """The service was stopped before it had started. The thread of the call is abandoned."""


def call_until_stopped(
    stopping: threading.Event, call: Callable[[], T], *, meanwhile: Callable[[], object] = lambda: None
) -> T:
    """Run ``call`` on a thread of its own and return or raise its result, unless ``stopping`` is set before.

    ``meanwhile`` is called repeatedly, at most `_POLL_S` apart, until the call ends.

    Raises:
        StoppedError: ``stopping`` is set.
    """
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again on the caller's thread
            answer.set_exception(error)

    # No executor: the interpreter joins its threads at exit.
    threading.Thread(target=work, name="start-call", daemon=True).start()
    while not stopping.is_set():
        meanwhile()
        try:
            return answer.result(_POLL_S)
        except NotYetError:
            if answer.done():
                raise
    raise StoppedError
