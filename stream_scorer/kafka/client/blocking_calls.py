"""Time limit for calls into librdkafka that may hang.

``send_offsets_to_transaction`` ignores its time-out. With the broker away it returned after 10 to 21 s, whatever the
time-out was. The *repeated* call never returned, not even when the broker was back (run with confluent-kafka 2.16
against Apache Kafka 4.4). A hanging call cannot be interrupted, only abandoned with its producer: the next producer
with the same transactional id fences it.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class CallTimedOutError(TimeoutError):
    """The call did not return in time. Its thread is abandoned."""


def call_with_timeout(limit_s: float, call: Callable[[], T]) -> T:
    """Run ``call`` on a thread of its own and return or raise its result; the waiting caller receives signals.

    Raises:
        CallTimedOutError: it did not return within ``limit_s`` seconds.
    """
    # Not SimpleQueue: see stream_scorer.runtime.worker_pool.
    answers: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()

    def work() -> None:
        try:
            answers.put((call(), None))
        except BaseException as error:  # noqa: BLE001 - raised again on the caller's thread
            answers.put((None, error))

    threading.Thread(target=work, name="kafka-call", daemon=True).start()
    try:
        result, error = answers.get(timeout=limit_s)
    except queue.Empty:
        raise CallTimedOutError(f"no answer from the Kafka client within {limit_s:g} s") from None
    if error is not None:
        try:
            raise error
        finally:
            del error  # or error and frame hold each other, and with them the call's client
    return result  # type: ignore[return-value]  # with no error it is the call's result
