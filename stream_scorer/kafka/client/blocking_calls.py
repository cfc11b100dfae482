"""Calls into librdkafka that must not stand still for ever.

``send_offsets_to_transaction`` does not keep its own time-out: with the broker away it came back after 10 to 21 s
whatever was asked for, and the *repeated* call never did, not even when the broker was back (run with confluent-kafka
2.16 against Apache Kafka 4.4). A call that hangs cannot be interrupted, only left behind with its producer: the next
producer with the same transactional id fences it.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class CallTimedOutError(TimeoutError):
    """The call did not come back in time. Its thread is left behind."""


def call_with_timeout(limit_s: float, call: Callable[[], T]) -> T:
    """Runs ``call`` on a thread of its own and returns or raises what it does; the caller waits and can be signalled.

    Raises:
        HungError: it did not come back within ``limit_s`` seconds.
    """
    # Not SimpleQueue: see stream_scorer.runtime.worker_pool.
    answers: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()

    def work() -> None:
        try:
            answers.put((call(), None))
        except BaseException as error:  # noqa: BLE001 - it is raised again where it belongs
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
            del error  # or it holds this frame, the frame holds it, and with it the call's client lives on
    return result  # type: ignore[return-value]  # with no error it is the call's result
