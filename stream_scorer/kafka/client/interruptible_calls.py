"""Calls at the start of a service that may hang, while somebody tells it to stop."""

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
    """The service was told to stop before it had begun to work. The call's thread is left behind."""


def call_until_stopped(
    stopping: threading.Event, call: Callable[[], T], *, meanwhile: Callable[[], object] = lambda: None
) -> T:
    """Run ``call`` on a thread of its own and return or raise what it does, unless ``stopping`` is set before.

    ``meanwhile`` is called again and again, at most `_POLL_S` apart, until it ends.

    Raises:
        StoppedError: it is set.
    """
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised again where it belongs
            answer.set_exception(error)

    # No executor: its threads are waited for at the end of the process.
    threading.Thread(target=work, name="start-call", daemon=True).start()
    while not stopping.is_set():
        meanwhile()
        try:
            return answer.result(_POLL_S)
        except NotYetError:
            if answer.done():
                raise
    raise StoppedError
