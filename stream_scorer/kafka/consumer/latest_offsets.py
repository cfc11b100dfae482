"""High watermarks of paused partitions, read from the brokers in the background.

A paused partition is not fetched, so the client's own high watermark does not advance, nor does the reported lag.
``Consumer.get_watermark_offsets(cached=False)`` would read it, but blocks up to its time-out for each partition while a
broker is away. An admin client reads it in the background.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from stream_scorer.core.records import Partition
from stream_scorer.errors import SettingsError
from stream_scorer.kafka.client.factory import create_client

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future

_EVERY_S: Final = 15.0
# Below the interval, so that no request is pending when the next one is due.
_REQUEST_TIMEOUT_S: Final = 10.0
_LATEST: Final[OffsetSpec] = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class LatestOffsets:
    """Reader of high watermarks, at most once every 15 s; no call blocks. Owned by one thread.

    Args:
        config: librdkafka properties of the admin client, which is created at the first request.
        monotonic: monotonic seconds.
        create: creates the admin client.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        monotonic: Callable[[], float],
        create: Callable[[dict[str, Any]], Any] = lambda config: create_client(AdminClient, config),
    ) -> None:
        self._config = dict(config)
        self._monotonic = monotonic
        self._create = create
        self._client: Any | None = None
        self._pending: list[tuple[Partition, Future[Any]]] = []
        self._requested_at = float("-inf")

    def poll(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Return the high watermarks received since the last call, and request those of ``partitions`` if due.

        The result omits partitions of brokers that do not answer or refuse; the next request is due as usual.
        """
        if self._client is not None:
            with suppress(KafkaException):
                self._client.poll(0)  # logs, and the renewal of OAUTHBEARER tokens
        arrived = {partition: future for partition, future in self._pending if future.done()}
        self._pending = [one for one in self._pending if one[0] not in arrived]
        if partitions and not self._pending and self._monotonic() - self._requested_at >= _EVERY_S:
            self._requested_at = self._monotonic()
            self._request(partitions)
        found = {p: future.result().offset for p, future in arrived.items() if future.exception() is None}
        if len(found) < len(arrived):
            # After a restart of the brokers an old client may fail for good: its metadata have an older leader epoch.
            self._client = None
        return found

    def close(self) -> None:
        """Drop the admin client and pending requests."""
        self._pending = []
        self._client = None

    def _request(self, partitions: Sequence[Partition]) -> None:
        wanted = {TopicPartition(*partition): _LATEST for partition in partitions}
        # The properties were valid at the start, but the files that they name may have changed.
        with suppress(KafkaException, SettingsError):
            if self._client is None:
                self._client = self._create(self._config)
            # Like the consumer's own watermarks: the end of the log, not the last stable offset.
            futures = self._client.list_offsets(
                wanted, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=_REQUEST_TIMEOUT_S
            )
            self._pending = [(Partition(place.topic, place.partition), future) for place, future in futures.items()]
