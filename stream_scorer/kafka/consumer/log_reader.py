"""Reader of topics with read_committed isolation, which joins no group and changes nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition

# The client's stubs do not list these public names.
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec  # type: ignore[attr-defined]

from stream_scorer.core.exactly_once.commit_metadata import parse_metadata
from stream_scorer.core.reconciliation.lost_offsets import Lost, parse_lost
from stream_scorer.core.records import SourceRecord
from stream_scorer.errors import BrokerRefused, BrokerUnavailable, NotJudged, StreamScorerError
from stream_scorer.kafka.admin.acls import Permission, refused_error
from stream_scorer.kafka.client.config import admin_config, reader_config, silent_logger
from stream_scorer.kafka.client.factory import create_client
from stream_scorer.kafka.consumer.topic_ids import TopicIds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from confluent_kafka import Message

    from stream_scorer.core.records import Headers
    from stream_scorer.settings import Settings

T = TypeVar("T")

# Small enough that records of 1 MB fit into memory, large enough that the cost of a call does not matter.
_BATCH: Final = 500
# Wait for a batch that is not full. The end of a partition shows only by waiting.
_BATCH_S: Final = 0.1
_CALL_S: Final = 5.0
_EARLIEST: Final[OffsetSpec] = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: Final[OffsetSpec] = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_AGAIN_S: Final = 0.1
# After a restart of a broker an admin client has no leaders, or repeats the epochs of former ones for a minute and
# longer: a new one reads them again.
_STALE_LEADERS: Final = frozenset(
    {
        KafkaError._NOENT,  # noqa: SLF001 - its public name
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    }
)
_IDENTITY_S: Final = 15.0
_DELETED: Final = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})  # noqa: SLF001


class Commit(NamedTuple):
    """Commit of a group on a partition; fields are None if the commit lacks them (see `CommitMetadata`).

    ``lost``: ranges deleted before the group had read them, as noted by an operator.
    """

    offset: int
    start: int | None
    topic_id: str | None = None
    since_ms: int | None = None
    lost: tuple[Lost, ...] = ()


class OffsetRange(NamedTuple):
    """Offsets to read of a partition: from ``begin`` to before ``end``."""

    begin: int
    end: int


class Record(NamedTuple):
    """Record in the client's form; its parts are unpacked only on access."""

    partition: int
    offset: int
    message: Message

    @property
    def key(self) -> bytes | None:
        """Its key."""
        return self.message.key()

    @property
    def value(self) -> bytes | None:
        """Its value."""
        return self.message.value()

    @property
    def timestamp_ms(self) -> int:
        """Kafka's timestamp of the record, in Unix milliseconds."""
        return int(self.message.timestamp()[1])

    @property
    def headers(self) -> Headers:
        """Its headers, in order; a name may occur several times. Without any if a name is not UTF-8."""
        try:
            headers: Any = self.message.headers()
        except (SystemError, UnicodeDecodeError):  # a name that is not UTF-8, so not one of this service's headers
            return []
        return headers or []

    def as_source_record(self, topic: str) -> SourceRecord:
        """Return the record as a value, without the client."""
        try:
            headers: Any = self.message.headers()
            is_readable = True
        except (SystemError, UnicodeDecodeError):  # as above
            headers, is_readable = [], False
        return SourceRecord(
            topic, self.partition, self.offset, self.key, self.value, headers or [], is_readable, self.timestamp_ms
        )


class LogReader:
    """Reader of commits, end offsets and records.

    Args:
        settings: the cluster.
        group_id: the group whose commits are read.
        timeout_s: limit without progress, in seconds, such as for a broker that is away or an open transaction.
    """

    def __init__(self, settings: Settings, group_id: str, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._servers = settings.kafka.bootstrap_servers
        self._config = reader_config(settings, group_id, logger=silent_logger())
        self._admin_config = admin_config(settings, logger=silent_logger())
        self._admin = create_client(AdminClient, self._admin_config)

    def commits(self, topic: str, partitions: int) -> dict[int, Commit]:
        """Return the group's commits on the topic, without partitions that have none.

        A commit of a pending transaction is waited for, so the result is what every reader sees.

        A consumer without the right on its group looks for the coordinator until its time-out. The cause is then an
        event of its own. (An admin client reports it immediately, but may crash: `kafka.client.coordinator_requests`.)

        Raises:
            BrokerUnavailable: no answer within the time limit.
            BrokerRefused: the right to describe the group is missing.
        """
        consumer = create_client(Consumer, self._config)
        wanted = [TopicPartition(topic, number) for number in range(partitions)]

        def ask() -> dict[int, Commit]:
            try:
                answers = consumer.committed(wanted, _CALL_S)
            except KafkaException:
                event = consumer.poll(0)
                cause = None if event is None else event.error()
                if cause is not None and cause.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                    raise KafkaException(cause) from None
                raise
            for answer in answers:
                if answer.error is not None:
                    raise KafkaException(answer.error)
            found = [(a, parse_metadata(a.metadata)) for a in answers if a.offset >= 0]
            return {
                a.partition: Commit(a.offset, one.start, one.topic_id, one.since_ms, parse_lost(a.metadata))
                for a, one in found
            }

        try:
            right = Permission("Describe", "group", self._config["group.id"])
            return self._retrying(f"reading the commits of group {right.name}", right, ask)
        finally:
            consumer.close()

    def extents(self, topic: str, partitions: int) -> dict[int, OffsetRange]:
        """Return the offsets from the first to the last record of every partition, open transactions included.

        Raises:
            BrokerUnavailable: no answer within the time limit.
        """
        begins = self._begins(topic, range(partitions))
        ends = self._ends(topic, range(partitions), IsolationLevel.READ_UNCOMMITTED)
        return {number: OffsetRange(begin, max(begin, ends[number])) for number, begin in begins.items()}

    def stable_ranges(self, topic: str, partitions: int) -> dict[int, OffsetRange]:
        """Return the offsets from the first record of every partition to its last stable offset.

        Raises:
            BrokerUnavailable: no answer within the time limit.
        """
        begins = self._begins(topic, range(partitions))
        ends = self._ends(topic, range(partitions), IsolationLevel.READ_COMMITTED)
        return {number: OffsetRange(begin, max(begin, ends[number])) for number, begin in begins.items()}

    def wait_for_last_stable_offset(self, topic: str, extents: Mapping[int, OffsetRange]) -> None:
        """Wait until every transaction with a record in these extents is committed or aborted.

        That is when the last stable offset has reached their ends. A topic in use may have an open transaction at any
        moment; later ones do not matter.

        Raises:
            BrokerUnavailable: one is still open after the time limit; names the place.
        """
        give_up_at = time.monotonic() + self._timeout_s
        ends = {number: extent.end for number, extent in extents.items()}
        while ends:
            stable = self._ends(topic, ends, IsolationLevel.READ_COMMITTED)
            ends = {number: end for number, end in ends.items() if stable[number] < end}
            if ends and time.monotonic() > give_up_at:
                number = min(ends)
                raise BrokerUnavailable(
                    f"{topic}/{number}: a transaction is open since offset {stable[number]}, and was not ended within"
                    f" {self._timeout_s:g} s: try again when its producer or transaction.timeout.ms has ended it"
                )
            if ends:
                time.sleep(_AGAIN_S)

    def is_compacted(self, topic: str) -> bool:
        """Return whether the topic is compacted; False without the right to read its configuration."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        try:
            [future] = self._admin.describe_configs([resource], request_timeout=_CALL_S).values()
            return "compact" in str(future.result()["cleanup.policy"].value)
        except KafkaException:
            return False

    def topic_id(self, topic: str) -> str | None:
        """Return the id of a topic; None: it does not exist, or the brokers report no id.

        Raises:
            BrokerUnavailable: no broker answered.
        """
        return TopicIds({}, lambda _: self._admin).read([topic]).get(topic)

    def read(self, topic: str, extents: Mapping[int, OffsetRange]) -> Iterator[list[Record]]:
        """Yield the records of the extents in batches, in order within each partition.

        Raises:
            BrokerUnavailable: no record arrived within the time limit.
            BrokerRefused: a right is missing.
            NotJudged: records were deleted before they were read.
        """
        ends = {number: extent.end for number, extent in extents.items() if extent.begin < extent.end}
        if not ends:
            return
        consumer = create_client(Consumer, self._config)
        try:
            consumer.assign([TopicPartition(topic, number, extents[number].begin) for number in ends])
            give_up_at = time.monotonic() + self._timeout_s
            while ends:
                messages = consumer.consume(_BATCH, _BATCH_S)
                batch, done = _within(topic, messages, ends, self._config)
                if done:
                    consumer.pause([TopicPartition(topic, number) for number in done])
                if batch:
                    yield batch
                # The limit excludes the time that the caller spends on a batch.
                if batch or done:
                    give_up_at = time.monotonic() + self._timeout_s
                elif time.monotonic() > give_up_at:
                    raise BrokerUnavailable(
                        f"reading {topic}/{min(ends)} from {self._servers}: no record for {self._timeout_s:g} s;"
                        " check whether the brokers run"
                    )
        finally:
            consumer.close()

    def follow(self, topic: str, begins: Mapping[int, int]) -> Iterator[list[Record]]:
        """Yield records from these offsets on without an end, in order within each partition.

        A batch is empty if no record has arrived for a moment, so the caller can end the iteration. A broker that does
        not answer is waited for.

        Raises:
            BrokerRefused: a right is missing, or the topic was deleted.
            NotJudged: records were deleted before they were read.
        """
        topic_id = self.topic_id(topic)
        check_at = time.monotonic() + _IDENTITY_S
        consumer = create_client(Consumer, self._config)
        try:
            consumer.assign([TopicPartition(topic, number, begin) for number, begin in begins.items()])
            while True:
                # The client waits without an end for a topic that was deleted.
                if time.monotonic() > check_at:
                    self.check_identity(topic, topic_id)
                    check_at = time.monotonic() + _IDENTITY_S
                batch = []
                for message in consumer.consume(_BATCH, _BATCH_S):
                    number, offset, error = message.partition(), message.offset(), message.error()
                    if error is not None:
                        if error.code() in _DELETED:  # retention, or a topic that was created again
                            self.check_identity(topic, topic_id)
                        _check(topic, error, self._config)
                    elif number is not None and offset is not None:
                        batch.append(Record(number, offset, message))
                yield batch
        finally:
            consumer.close()

    def check_identity(self, topic: str, topic_id: str | None) -> None:
        """Check that a topic still has this id; None, or no answer: it is not checked.

        Raises:
            BrokerRefused: it was deleted, or created again.
        """
        try:
            is_same = topic_id is None or self.topic_id(topic) == topic_id
        except BrokerUnavailable:
            return
        if not is_same:
            raise BrokerRefused(f"topic {topic} was deleted: start again if it was created again")

    def first_offsets(self, topic: str, partitions: Iterable[int], time_ms: int) -> dict[int, int]:
        """Return the first offset of each partition whose timestamp is at or after a time; without any it is left out.

        Raises:
            BrokerUnavailable: no answer within the time limit.
            BrokerRefused: a right is missing.
        """
        spec: OffsetSpec = OffsetSpec.for_timestamp(time_ms)
        found = self._offsets(topic, partitions, spec, IsolationLevel.READ_COMMITTED)
        return {number: offset for number, offset in found.items() if offset >= 0}

    def _begins(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        return self._offsets(topic, partitions, _EARLIEST, IsolationLevel.READ_UNCOMMITTED)

    def _ends(self, topic: str, partitions: Iterable[int], isolation: IsolationLevel) -> dict[int, int]:
        """Return high watermarks (read_uncommitted) or last stable offsets (read_committed)."""
        return self._offsets(topic, partitions, _LATEST, isolation)

    def _offsets(
        self, topic: str, partitions: Iterable[int], spec: OffsetSpec, isolation: IsolationLevel
    ) -> dict[int, int]:
        request = {TopicPartition(topic, number): spec for number in partitions}

        def ask() -> dict[int, int]:
            answers = self._admin.list_offsets(request, isolation_level=isolation, request_timeout=_CALL_S)
            return {partition.partition: future.result().offset for partition, future in answers.items()}

        return self._retrying(f"reading the offsets of {topic}", Permission("Describe", "topic", topic), ask)

    def _retrying(self, doing: str, right: Permission, ask: Callable[[], T]) -> T:
        """Return the result of ``ask``, retried on retryable errors: judges also run just after a broker was killed."""
        give_up_at = time.monotonic() + self._timeout_s
        while True:
            try:
                return ask()
            except KafkaException as error:
                is_stale = error.args[0].code() in _STALE_LEADERS
                translated = refused_error(error, f"{doing} at {self._servers}", self._config, right)
                if not (translated.retryable or is_stale) or time.monotonic() > give_up_at:
                    raise translated from None
            if is_stale:
                self._admin = create_client(AdminClient, self._admin_config)
            time.sleep(_AGAIN_S)


def _within(
    topic: str, messages: list[Message], ends: dict[int, int], config: Mapping[str, Any]
) -> tuple[list[Record], list[int]]:
    """Return the records below the ends, and the partitions read to their end, which are removed from ``ends``.

    The record before an end may be missing: a transaction marker, aborted, or compacted away. So a partition has also
    ended at a later record, or at an end-of-partition event.
    """
    batch: list[Record] = []
    done: list[int] = []
    for message in messages:
        number, offset, error = message.partition(), message.offset(), message.error()
        if error is not None:
            _check(topic, error, config)
        if number is None or offset is None or number not in ends:
            continue  # it was queued when its partition had ended
        end = ends[number]
        if error is None and offset < end:
            batch.append(Record(number, offset, message))
        is_end = offset >= end - 1 if error is None else error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001
        if is_end:
            done.append(number)
            del ends[number]
    return batch, done


def _check(topic: str, error: KafkaError, config: Mapping[str, Any]) -> None:
    """Raise the error of a reader, unless the client goes on.

    The client looks for the coordinator of its group although the reader joins none and commits nothing. So a missing
    right on the group is no error here; the commits of a group are read by another call.
    """
    if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
        return
    if error.code() in _DELETED:
        raise NotJudged(f"reading {topic}: retention deleted records before they were read: run this again")
    if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
        translated: StreamScorerError = refused_error(
            error, f"reading {topic}", config, Permission("Read", "topic", topic)
        )
        if not translated.retryable:
            raise translated
