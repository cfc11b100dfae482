"""Calls into the Kafka client that may hang: with a time limit, and interruptible by a stop.

``send_offsets_to_transaction`` ignores its time-out. With the broker away it returned after 10 to 21 s, whatever the
time-out was. The *repeated* call never returned, not even when the broker was back (run with confluent-kafka 2.16
against Apache Kafka 4.4). A hanging call cannot be interrupted, only abandoned with its producer: the next producer
with the same transactional id fences it.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_POLL_S: Final = 0.1


class CallTimedOutError(TimeoutError):
    """The call did not return in time. Its thread is abandoned."""


class StoppedError(Exception):
    """The service was stopped before the call returned. Its thread is abandoned."""


def call_with_timeout(limit_s: float, call: Callable[[], T]) -> T:
    """Run ``call`` on a thread of its own and return or raise its result; the waiting caller receives signals.

    Raises:
        CallTimedOutError: it did not return within ``limit_s`` seconds.
    """
    try:
        return _Call(call).result(limit_s)
    except queue.Empty:
        raise CallTimedOutError(f"no answer from the Kafka client within {limit_s:g} s") from None


def call_until_stopped(
    stopping: threading.Event, call: Callable[[], T], *, meanwhile: Callable[[], object] = lambda: None
) -> T:
    """Run ``call`` on a thread of its own and return or raise its result, unless ``stopping`` is set before.

    ``meanwhile`` is called until then, at most `_POLL_S` seconds apart.

    Raises:
        StoppedError: ``stopping`` is set.
    """
    running = _Call(call)
    while not stopping.is_set():
        meanwhile()
        try:
            return running.result(_POLL_S)
        except queue.Empty:
            continue
    raise StoppedError


class _Call(Generic[T]):
    """A call on a daemon thread. No executor: Python waits for its threads at the end of the process."""

    def __init__(self, call: Callable[[], T]) -> None:
        # Not SimpleQueue: see stream_scorer.runtime.worker_pool.
        self._outcome: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()
        threading.Thread(target=_run, args=(call, self._outcome), name="kafka-call", daemon=True).start()

    def result(self, wait_s: float) -> T:
        """Return or raise the result; `queue.Empty` if there is none after ``wait_s`` seconds."""
        result, error = self._outcome.get(timeout=wait_s)
        if error is not None:
            try:
                raise error
            finally:
                del error  # or error and frame hold each other, and the call's client lives on
        return result  # type: ignore[return-value]  # without an error it is the call's result


def _run(call: Callable[[], T], outcome: queue.Queue[tuple[T | None, BaseException | None]]) -> None:
    try:
        outcome.put((call(), None))
    except BaseException as error:  # noqa: BLE001 - raised again on the caller's thread
        outcome.put((None, error))
