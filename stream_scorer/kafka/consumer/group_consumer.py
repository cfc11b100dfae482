"""Consumer that reads topics as a member of a consumer group.

The rebalance callbacks run inside ``read`` and ``close``, on the worker's own thread. Start offsets are the group's
commits only (``auto.offset.reset`` is ``error``). A partition without a commit was added after the group started; it is
read from its beginning.

A second client, which is no member of the group, reads the retry topics: see ``kafka.consumer.retry_consumer``.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from stream_scorer.core.exactly_once.commit_metadata import CommitMetadata
from stream_scorer.core.records import Partition, SourceRecord, size_of
from stream_scorer.doc_pages import docs_command
from stream_scorer.errors import BrokerRefused, BrokerUnavailable
from stream_scorer.kafka.admin.acls import Permission, refused_error
from stream_scorer.kafka.client.connectivity import BrokerConnectivity
from stream_scorer.kafka.client.errors import translate
from stream_scorer.kafka.client.factory import create_client
from stream_scorer.kafka.consumer.end_of_partition import EndOfPartitionTracker
from stream_scorer.kafka.consumer.retry_consumer import RetryConsumer
from stream_scorer.kafka.consumer.start_offsets import start_and_next_offset

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from stream_scorer.kafka.consumer.latest_offsets import LatestOffsets
    from stream_scorer.kafka.consumer.topic_ids import TopicIdentity

T = TypeVar("T")

_CALL_S = 5.0
_RETRY_S = 0.5
# How often the retry topics are checked for added partitions. The call blocks while no broker responds.
_LOOK_EVERY_S = 60.0
_LOOK_S = 1.0
# The bytes of one read, estimated from the size of the previous records with the overhead of their headers. The first
# read is small: a worker that was killed for its memory must not be killed again.
_READ_BYTES = 16 * 1024 * 1024
_FIRST_READ = 32
_MAX_READ = 10_000
# One read may have this fraction of additional records from retry topics.
_RETRY_SHARE = 4
_COMMITTED = "reading the committed offsets"
# Only an operator or the cluster's administrator can help; the client would retry without end and report nothing.
_REFUSALS = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.INVALID_SESSION_TIMEOUT,
        KafkaError.INCONSISTENT_GROUP_PROTOCOL,
        KafkaError.INVALID_GROUP_ID,
    }
)
_MEMBER = "group.instance.id"


class RebalanceListener(Protocol):
    """Listener for assignments and revocations of the partitions that are read here."""

    def on_assigned(self, partition: Partition, *, start_offset: int, next_offset: int) -> None:
        """Start an assignment at ``next_offset``; ``start_offset``: the group's first offset on the partition."""

    def on_revoking(self, partitions: list[Partition]) -> None:
        """Commit the finished outcomes of these partitions: they are about to be revoked."""

    def on_revoked(self, partitions: list[Partition]) -> None:
        """End the assignment of these partitions; none of their offsets may be committed any more."""

    def on_rebalance_completed(self) -> None:
        """Record the end of a rebalance, possibly without partitions."""

    def on_disconnected(self, reason: str) -> None:
        """Record that no broker can be reached or none grants access; the next group event ends that state."""


class GroupConsumer:
    """Consumer of a group, and of the retry topics of its partitions. Owned by one thread.

    Args:
        config: the consumer's librdkafka properties.
        topics: the topics of the group.
        wait: waits this many seconds; returns False once the worker should stop.
        latest: reads the end offsets of paused partitions; None: they stay as last fetched.
        identity: compares the ids of topics; None: commits contain no id.
        retry_topics: assigned together with the partitions of the only topic in ``topics``.
    """

    def __init__(
        self,
        config: dict[str, Any],
        topics: Sequence[str],
        wait: Callable[[float], bool],
        *,
        latest: LatestOffsets | None = None,
        identity: TopicIdentity | None = None,
        retry_topics: Sequence[str] = (),
    ) -> None:
        self._topics = list(topics)
        self._group_id = config.get("group.id")
        self._properties = config
        self._log: logging.Logger | None = config.get("logger")
        self._wait = wait
        self._connectivity = BrokerConnectivity(config)
        self._consumer = create_client(Consumer, {**config, "error_cb": self._connectivity.error})
        self._retries = RetryConsumer(config, self._topics[0], retry_topics) if retry_topics else None
        self._inputs: set[Partition] = set()
        self._partitions_checked_at = 0.0
        self._read_limit = _FIRST_READ
        self._listener: RebalanceListener | None = None
        self._paused = False
        self._paused_partitions: set[Partition] = set()
        self._end_of_partition = EndOfPartitionTracker()
        self._latest = latest
        self._identity = identity
        self._latest_ends: dict[Partition, int] = {}

    def subscribe(self, listener: RebalanceListener) -> None:
        """Join the group; ``listener`` is called for every assignment, revocation and loss."""
        self._listener = listener
        self._consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def read(self, max_records: int, wait_s: float) -> list[SourceRecord]:
        """Return up to ``max_records`` records after a wait of at most ``wait_s``. Rebalances happen in this call.

        Raises:
            BrokerRefused: the committed offset is not in the log any more, a topic was deleted and created again, a
                right is missing, or the group does not accept this member.
        """
        if self._identity is not None:
            self._identity.poll()
        records: list[SourceRecord] = []
        limit = min(max_records, self._read_limit)
        messages = self._consumer.consume(limit, wait_s)
        # After the input: a rebalance in its call may have changed which retry partitions are read.
        if self._retries is not None and self._inputs:
            self._look_for_partitions()
            messages += self._retries.client.consume(max(1, limit // _RETRY_SHARE), 0.0)
        messages.reverse()
        while messages:
            message = messages.pop()  # released in its iteration: the client stores the unpacked headers in it
            error = message.error()
            if error is None:
                record = _record(message)
                # At once: if an error behind it ends this call, no commit may pass it, since the ledger never gets it.
                self._end_of_partition.delivered(record.topic, record.partition, record.offset + 1)
                records.append(record)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its only name
                self._end_of_partition.eof_at(message)
            else:
                self._on_error(error, message)
        if records:
            size = sum(map(size_of, records)) // len(records) or 1
            self._read_limit = max(1, min(2 * self._read_limit, _MAX_READ, _READ_BYTES // size))
        if (reason := self._connectivity.pop_error()) is not None:
            self._listener_of().on_disconnected(reason)
        return records

    def pause(self) -> None:
        """Pause all partitions until ``resume``; the worker stays in its group as long as it calls ``read``."""
        if not self._paused:
            self._paused = True
            for client in self._clients:
                client.pause(client.assignment())

    def resume(self) -> None:
        """Resume the partitions that are not paused separately."""
        if self._paused:
            self._paused = False
            for client in self._clients:
                client.resume(
                    [place for place in client.assignment() if _partition(place) not in self._paused_partitions]
                )

    def pause_partition(self, partition: Partition) -> None:
        """Pause an assigned partition until ``resume_from``."""
        self._paused_partitions.add(partition)
        self._client_of(partition).pause([TopicPartition(*partition)])

    def resume_from(self, partition: Partition, offset: int) -> bool:
        """Resume a paused partition from the record at ``offset``, wherever its position is.

        Return False if that is not possible now: then it stays paused, and no record is skipped.
        """
        if partition not in self._paused_partitions:
            return True  # revoked in the meantime; a new assignment is read from its commit
        client = self._client_of(partition)
        if not self._paused:
            client.resume([TopicPartition(*partition)])
        try:
            # Behind the resume: librdkafka begins to fetch at once after a seek only. After a resume it waits until
            # another event wakes its broker thread. What it has fetched from the former position is discarded.
            client.seek(TopicPartition(*partition, offset))
        except KafkaException:
            client.pause([TopicPartition(*partition)])
            return False
        self._end_of_partition.seek(partition, offset)
        self._paused_partitions.discard(partition)
        return True

    def group_metadata(self) -> Any | None:
        """Return the metadata by which the broker checks the generation of a transactional commit; None: no member.

        librdkafka drops its member id in the background as soon as the group has removed the member, before ``read``
        reports that the partitions are lost. Metadata without a member id is not checked by the broker.
        """
        metadata = self._consumer.consumer_group_metadata()
        return metadata if self._consumer.memberid() else None

    def committed(self, partitions: Iterable[Partition]) -> Mapping[Partition, int]:
        """Return the committed offsets after pending transactions are resolved; partitions without one are left out.

        Raises:
            BrokerUnavailable: no broker has responded.
        """
        wanted = [TopicPartition(*partition) for partition in partitions]
        if not wanted:
            return {}
        try:
            answers = self._consumer.committed(wanted, _CALL_S)
        except KafkaException as error:
            raise BrokerUnavailable(self._refused_message(error.args[0])) from error
        for answer in answers:
            if answer.error is not None:
                raise BrokerUnavailable(self._refused_message(answer.error))
        return {Partition(a.topic, a.partition): a.offset for a in answers if a.offset >= 0}

    def commit_offset(self, partition: Partition, next_offset: int) -> int:
        """Return the offset to commit once every record below ``next_offset`` is finished."""
        return self._end_of_partition.commit_offset(partition, next_offset)

    def commit_metadata(self, partition: Partition, start_offset: int) -> str:
        """Return the metadata of the next commit on a partition; ``start_offset``: the group's first offset."""
        if self._identity is None:
            return str(CommitMetadata(start_offset))
        return self._identity.metadata(partition, start_offset)

    def topic_id(self, topic: str) -> str | None:
        """Return the id of a topic that is read here; None: unknown, or no partition is assigned yet."""
        return None if self._identity is None else self._identity.read_id(topic)

    def check_topics(self, topics: Collection[str]) -> None:
        """Check that these topics are those that were read, before their offsets are committed.

        Raises:
            BrokerRefused: one was deleted and created again.
            BrokerUnavailable: the ids could not be read, or one is deleted.
        """
        if self._identity is not None:
            self._identity.check(topics)

    def end_offsets(self, partitions: Iterable[Partition]) -> Mapping[Partition, int]:
        """Return the offset behind the last record of each partition; a partition without a known end is left out.

        The end is that of the latest fetch; for a paused partition it is requested from the brokers every 15 s.
        Transaction markers and aborted records do not count: they are never delivered.
        """
        partitions = list(partitions)
        if self._latest is not None:
            paused = [one for one in partitions if self._paused or one in self._paused_partitions]
            self._latest_ends.update(self._latest.poll(paused))
        found = {}
        for partition in partitions:
            fetched = self._fetched_end(partition)
            end = max(fetched, self._latest_ends.get(partition, -1))
            if end == fetched:  # a fetch has caught up, and is newer
                self._latest_ends.pop(partition, None)
            if end >= 0:
                found[partition] = self._end_of_partition.end_offset(partition, end)
        return found

    def _fetched_end(self, partition: Partition) -> int:
        """Return the high watermark of the latest fetch, from the client's cache; -1: unknown."""
        try:
            place = TopicPartition(*partition)
            _, end = self._client_of(partition).get_watermark_offsets(place, cached=True)
        except KafkaException:
            return -1
        return max(-1, int(end))

    def close(self) -> None:
        """Leave the group. The listener is called as for any revocation."""
        self._consumer.close()
        if self._latest is not None:
            self._latest.close()
        if self._identity is not None:
            self._identity.close()
        if self._retries is not None:
            self._retries.close()

    @property
    def _clients(self) -> tuple[Consumer, ...]:
        return (self._consumer,) if self._retries is None else (self._consumer, self._retries.client)

    def _client_of(self, partition: Partition) -> Consumer:
        return self._consumer if self._retries is None or partition not in self._retries else self._retries.client

    # --- rebalances

    def _listener_of(self) -> RebalanceListener:
        if self._listener is None:
            raise AssertionError("a rebalance before subscribe")
        return self._listener

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        if assigned:
            starts = self._starts(assigned)
            if starts is None:
                return  # stopped while no broker responded
            consumer.incremental_assign(
                [TopicPartition(p.topic, p.number, next_offset) for p, (_, next_offset) in starts.items()]
            )
            # A new partition is not paused, one that was lost while paused still is: set the state in both cases.
            (consumer.pause if self._paused else consumer.resume)([TopicPartition(*partition) for partition in starts])
            self._inputs.update(starts)
            self._assign(starts)
        if self._retries is not None and self._retrying(lambda: self._follow(_CALL_S), ()) is None:
            return
        self._listener_of().on_rebalance_completed()

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        partitions = _partitions(revoked)
        try:
            self._revoke(partitions, self._with_retries(partitions), is_lost=False)
        finally:
            # Also if the last commit raises: without the unassign, `close` would wait for it.
            consumer.incremental_unassign(revoked)

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        partitions = _partitions(lost)
        self._revoke(partitions, self._with_retries(partitions), is_lost=True)
        consumer.incremental_unassign(lost)

    def _assign(self, starts: Mapping[Partition, tuple[int, int]]) -> None:
        """Call the listener for new partitions."""
        self._paused_partitions.difference_update(starts)
        for partition, (start_offset, next_offset) in starts.items():
            self._end_of_partition.seek(partition, next_offset)
            self._latest_ends.pop(partition, None)
            self._listener_of().on_assigned(partition, start_offset=start_offset, next_offset=next_offset)

    def _revoke(self, inputs: list[Partition], retries: list[Partition], *, is_lost: bool) -> None:
        """Call the listener for revoked partitions; it commits finished outcomes first unless they are lost."""
        partitions = [*inputs, *retries]
        try:
            if not is_lost:
                self._listener_of().on_revoking(partitions)
        finally:
            self._listener_of().on_revoked(partitions)
            self._paused_partitions.difference_update(partitions)
            self._inputs.difference_update(inputs)
            if self._identity is not None:
                self._identity.revoke(partitions)
            if self._retries is not None:
                self._retries.unassign(retries)

    def _with_retries(self, inputs: list[Partition]) -> list[Partition]:
        return [] if self._retries is None else self._retries.assigned_with(inputs)

    def _follow(self, timeout_s: float) -> bool:
        """Assign exactly the retry partitions that belong to the assigned input partitions."""
        if self._retries is None:
            return True
        self._partitions_checked_at = time.monotonic()
        wanted = self._retries.going_with(self._inputs, timeout_s)
        assigned = self._retries.assigned
        if gone := [partition for partition in assigned if partition not in wanted]:
            self._revoke([], gone, is_lost=False)
        if new := [TopicPartition(*partition) for partition in wanted if partition not in assigned]:
            starts = self._begin(new, timeout_s)
            for partition, (_, next_offset) in starts.items():
                self._retries.assign(partition, wanted[partition], next_offset, paused=self._paused)
            self._assign(starts)
        return True

    def _look_for_partitions(self) -> None:
        """Assign partitions that were added to the retry topics: they cause no rebalance."""
        if time.monotonic() - self._partitions_checked_at >= _LOOK_EVERY_S:
            with suppress(KafkaException, BrokerUnavailable):
                self._follow(_LOOK_S)

    def _starts(self, assigned: list[TopicPartition]) -> dict[Partition, tuple[int, int]] | None:
        return self._retrying(lambda: self._begin(assigned, _CALL_S), self._topics)

    def _begin(self, assigned: list[TopicPartition], timeout_s: float) -> dict[Partition, tuple[int, int]]:
        """Return the group's start offset and the next offset of each partition, both from its commit."""
        answers = self._consumer.committed(assigned, timeout_s)
        if self._identity is not None:
            self._identity.begin(answers, timeout_s)  # first: offsets of a former topic may be in this log, too
        return {
            Partition(answer.topic, answer.partition): start_and_next_offset(self._consumer, answer, timeout_s)
            for answer in answers
        }

    def _retrying(self, ask: Callable[[], T], topics: Sequence[str]) -> T | None:
        """Repeat a call until a broker responds; None: the worker should stop."""
        while True:
            try:
                return ask()
            except (KafkaException, BrokerUnavailable) as error:
                if isinstance(error, KafkaException) and error.args[0].code() in _REFUSALS:
                    right = self._right(error.args[0], ", ".join(topics) or None)
                    raise refused_error(error, _COMMITTED, self._properties, right) from error
                if not self._wait(_RETRY_S):
                    return None

    def _refused_message(self, error: KafkaError) -> str:
        return str(refused_error(error, _COMMITTED, self._properties, self._right(error, None)))

    def _right(self, error: KafkaError, topic: str | None) -> Permission:
        """Return the permission that an authorization error is about."""
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return Permission("Read", "group", str(self._group_id))
        return Permission("Read", "topic", topic or ", ".join(self._topics))

    def _on_error(self, error: KafkaError, message: Any) -> None:
        if error.code() in {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:  # noqa: SLF001
            with suppress(BrokerUnavailable):
                self.check_topics([message.topic()])  # if the topic was created again, that is the cause
            raise BrokerRefused(
                f"{message.topic()}/{message.partition()}: the log no longer holds the offset that was to be read next "
                f"({error.str()}); records were deleted before they were read:"
                f" see {docs_command('operations', 'offsets-gone')}"
            )
        # All other errors are transient or end with the next rebalance: a lost membership, late metadata of a topic.
        doing = f"reading topic {', '.join(self._topics)} as group {self._group_id}"
        if error.code() in _REFUSALS:
            raise refused_error(error, doing, self._properties, self._right(error, message.topic()))
        if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001 - it reads nothing more, and reports it once
            hint = ""
            if _MEMBER in self._properties:
                hint = f"; give each worker a {_MEMBER} of its own in kafka.properties, or none"
                if self._properties.get("group.protocol") == "consumer":
                    hint += (
                        ". That of a worker that was killed is free when its session has ended, by default after 45 s"
                        " (group.consumer.session.timeout.ms): start this one again then"
                    )
            raise BrokerRefused(f"{translate(error, doing)}{hint}")
        if self._log is not None:  # rate-limited if it is the clients' logger: librdkafka repeats its errors
            self._log.warning("group %s: %s", self._group_id, error.str())


def _record(message: Any) -> SourceRecord:
    try:
        headers, readable = message.headers() or [], True
    except (SystemError, UnicodeDecodeError):  # the client decodes every name as UTF-8; Kafka accepts any bytes
        headers, readable = [], False
    return SourceRecord(
        message.topic(),
        message.partition(),
        message.offset(),
        message.key(),
        message.value(),
        headers,
        readable,
        message.timestamp()[1],
    )


def _partition(place: TopicPartition) -> Partition:
    return Partition(place.topic, place.partition)


def _partitions(places: list[TopicPartition]) -> list[Partition]:
    return [_partition(place) for place in places]
