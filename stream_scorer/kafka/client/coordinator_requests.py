"""Requests of the admin client to the coordinator of a group, which must not reach their own time limit.

When one does while its response is on the way, an assertion of librdkafka aborts the process (issue 4605; with
confluent-kafka 2.16, 60 s of requests to a broker that stood still again and again). So the request has a limit that is
never reached, and the wait for its result has the real one. A request that is abandoned ends with its client.

The commits of a group are not read like this: an admin client that asks a former coordinator for them crashes (issue
5040). A consumer reads them.
"""

from __future__ import annotations

from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

T = TypeVar("T")

_NEVER_S: Final = 3_600.0


def coordinator_result(request: Callable[..., dict[str, Future[T]]], argument: Any, *, timeout_s: float) -> T:
    """Send a request about one group and return its result.

    Args:
        request: a method of the admin client, such as `describe_consumer_groups`.
        argument: its argument for the group.
        timeout_s: how long to wait for the result, in seconds.

    Raises:
        KafkaException: the request failed, or there was no response in time (``_TIMED_OUT``).
    """
    [future] = request([argument], request_timeout=_NEVER_S).values()
    try:
        return future.result(timeout=timeout_s)
    except FutureTimeoutError:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None  # noqa: SLF001 - its public name
