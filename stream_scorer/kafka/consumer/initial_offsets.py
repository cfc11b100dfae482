"""Start offsets of a new group, committed for every partition before any worker subscribes (``kafka.start_from``).

Otherwise each partition's start would be decided when it is first assigned. With ``latest`` that is later for some
workers than for others, and the records in between would be skipped for good.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition

# The client's stubs do not list these public names.
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from stream_scorer.core.exactly_once.commit_metadata import CommitMetadata, parse_metadata
from stream_scorer.core.records import Partition
from stream_scorer.core.retry_topics import StartBounds
from stream_scorer.errors import BrokerRefused, BrokerUnavailable
from stream_scorer.kafka.admin.acls import Permission, principal, refused_error
from stream_scorer.kafka.client.config import admin_config, reader_config, silent_logger
from stream_scorer.kafka.client.coordinator_requests import coordinator_result
from stream_scorer.kafka.client.errors import translate
from stream_scorer.kafka.client.factory import create_client
from stream_scorer.kafka.consumer.topic_ids import TopicIds, replaced_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from stream_scorer.settings import Settings

T = TypeVar("T")

_CALL_S: Final = 10.0
_RETRY_S: Final = 0.5
# Offsets of an active group cannot be set: another worker was first, and has committed the start.
_ANOTHER_WAS_FIRST: Final = frozenset({KafkaError.UNKNOWN_MEMBER_ID, KafkaError.NON_EMPTY_GROUP})
_NEWEST: Final[OffsetSpec] = OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call]
# More than clocks of brokers and workers differ.
_MAX_AHEAD_MS: Final = 3_600_000
# Kafka before 3.0 does not return the newest time of a partition.
_UNSUPPORTED: Final = frozenset({KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION})  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class InitialOffsets:
    """Topics of a group, and its start if it is new.

    Attributes:
        group_id: the group.
        topics: its input topics.
        start_from: ``earliest``, ``latest`` or an ISO time.
        start_at_ms: that time as Unix milliseconds; None for ``earliest`` and ``latest``.
        outputs: topics whose records, even deleted ones, show that the group is not new but has lost its commits.
        key: the setting that names the group.
        price: the cost of starting over, as the end of a sentence.
        is_allowed: whether it may start beside such records (``kafka.allow_new_group``).
        retry_topics: topics in which the group starts behind the last record, whatever ``start_from`` is. Records there
            at its start belong to another group or to a former start of this one. Their contacts are read again from
            ``topics``, or precede the chosen start.
        other_outputs: further topics with records about ``topics``.
        retry_offsets: for each partition of retry topics in which the group starts at another offset: that offset.
    """

    group_id: str
    topics: tuple[str, ...]
    start_from: str
    start_at_ms: int | None
    outputs: tuple[str, ...]
    key: str
    price: str
    is_allowed: bool
    retry_topics: tuple[str, ...] = ()
    other_outputs: tuple[str, ...] = ()
    retry_offsets: Mapping[tuple[str, int], int] = field(default_factory=dict)


class StartReport(NamedTuple):
    """Result of `write_start`.

    Attributes:
        replaced: topics that were deleted and created again, and are now accepted.
        without_id: topics for which the brokers report no id.
    """

    replaced: tuple[str, ...] = ()
    without_id: tuple[str, ...] = ()


def scoring_start(settings: Settings, retry_topics: Sequence[str] = ()) -> InitialOffsets:
    """Return the start of the scoring worker's group. Starting over would pay for every score again."""
    kafka, topics = settings.kafka, settings.topics
    return InitialOffsets(
        group_id=kafka.group_id,
        topics=(topics.features,),
        start_from=kafka.start_from,
        start_at_ms=kafka.start_at_ms,
        outputs=(topics.scores, topics.review, topics.rejected, topics.audit),
        key="kafka.group_id",
        price="pay for what may be scored already",
        is_allowed=kafka.allow_new_group,
        retry_topics=tuple(retry_topics),
    )


def planning_start(settings: Settings) -> InitialOffsets:
    """Return the start of the planner's group. Starting over would call every contact again, under other ids."""
    kafka, topics = settings.kafka, settings.topics
    return InitialOffsets(
        group_id=settings.callbacks_group_id,
        topics=(topics.scores,),
        start_from=kafka.start_from,
        start_at_ms=kafka.start_at_ms,
        outputs=(topics.receipts, topics.callbacks),
        key="callbacks.group_id",
        price="call contacts that may have been called already",
        is_allowed=kafka.allow_new_group,
        other_outputs=(topics.callbacks_rejected,),
    )


def write_start(
    settings: Settings, start: InitialOffsets, *, chosen: bool, new_topic: bool = False, timeout_s: float = 30.0
) -> StartReport:
    """Commit the start of a group that has no commit yet, or whose topic was created again.

    Args:
        settings: the cluster.
        start: the group and its start.
        chosen: whether this command names the start (``--from``).
        new_topic: whether the operator accepts topics that were deleted and created again (``--new-topic``).
        timeout_s: how long to retry while the cluster does not answer, in seconds.

    Raises:
        BrokerRefused: a topic was deleted and created again, or a group without commits has outputs that hold or held
            records. Its commits have expired, or its name is mistyped. Starting would pay for every score again, so
            the operator has to confirm it.
        BrokerUnavailable: no answer for ``timeout_s``; on a new cluster the coordinator is not available at once.
    """
    ids = TopicIds(admin_config(settings, logger=silent_logger()))
    try:
        return _retrying(lambda: _write_start(settings, start, ids, chosen=chosen, new_topic=new_topic), timeout_s)
    finally:
        ids.close()


def read_bounds(settings: Settings, start: InitialOffsets, *, timeout_s: float = 30.0) -> StartBounds:
    """Return the bounds of the group's own records in retry partitions without a commit, once its start is committed.

    Args:
        settings: the cluster.
        start: the group.
        timeout_s: how long to retry while the cluster does not answer, in seconds.

    Raises:
        BrokerUnavailable: no answer for ``timeout_s``.
    """
    return _retrying(lambda: _read_bounds(settings, start), timeout_s)


def has_commits(settings: Settings, group_id: str, topic: str, *, timeout_s: float = 30.0) -> bool:
    """Return whether a group has a commit on a topic.

    Raises:
        BrokerRefused: the right to read the group's commits is missing.
        BrokerUnavailable: no answer for ``timeout_s``.
    """

    def ask() -> bool:
        with _reader(settings, group_id) as reader:
            return _has_commits(reader, _partitions(reader, topic))

    return _retrying(ask, timeout_s)


def _retrying(ask: Callable[[], T], timeout_s: float) -> T:
    give_up_at = time.monotonic() + timeout_s
    while True:
        try:
            return ask()
        except BrokerUnavailable:
            if time.monotonic() >= give_up_at:
                raise
            time.sleep(_RETRY_S)


def _read_bounds(settings: Settings, start: InitialOffsets) -> StartBounds:
    with _reader(settings, start.group_id) as reader:
        retries = [partition for topic in start.retry_topics for partition in _partitions(reader, topic)]
        if not retries:
            return StartBounds()
        new = [Partition(a.topic, a.partition) for a in _committed(reader, retries) if a.offset < 0]
        inputs = [partition for topic in start.topics for partition in _partitions(reader, topic)]
        commits = [a for a in _committed(reader, inputs) if a.offset >= 0]
    begun = {Partition(a.topic, a.partition): parse_metadata(a.metadata) for a in commits}
    return StartBounds(
        frozenset(new),
        {partition: one.start for partition, one in begun.items() if one.start is not None},
        {partition: one.since_ms for partition, one in begun.items() if one.since_ms is not None},
    )


def _committed(reader: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
    answers = reader.committed(partitions, _CALL_S) if partitions else []
    for answer in answers:
        if answer.error is not None:
            raise KafkaException(answer.error)
    return answers


def _write_start(
    settings: Settings, start: InitialOffsets, ids: TopicIds, *, chosen: bool, new_topic: bool
) -> StartReport:
    with _reader(settings, start.group_id) as reader:
        inputs = [partition for topic in start.topics for partition in _partitions(reader, topic)]
        retries = [partition for topic in start.retry_topics for partition in _partitions(reader, topic)]
        present = ids.read({*start.topics, *start.retry_topics})
        commits = _committed(reader, inputs + retries)
        replaced = _replaced(commits, present, start, is_accepted=new_topic)
        report = StartReport(replaced, tuple(topic for topic, topic_id in present.items() if topic_id is None))
        if replaced:
            begin = _StartOffsets(reader, present, since_ms=_after_former_outputs(settings, reader, start))
            offsets = [begin.chosen(start, one) for one in inputs if one.topic in replaced]
            # Retry topics may hold contacts of the former topic: start at the commits, without one at the beginning.
            begun = {(one.topic, one.partition) for one in commits if one.offset >= 0 and one.topic not in replaced}
            offsets += [begin.first(one) for one in retries if (one.topic, one.partition) not in begun]
        elif _has_commits(reader, inputs) or not _may_begin(reader, start, inputs, chosen=chosen):
            return report
        else:
            begin = _StartOffsets(reader, present)
            offsets = [begin.chosen(start, one) for one in inputs] + [begin.retry(start, one) for one in retries]
    is_other_first = not _commit(settings, start.group_id, offsets)
    if is_other_first and replaced:
        raise BrokerUnavailable(
            f"topic {replaced[0]} was created again, and a worker of group {start.group_id} still runs: stop all of"
            " them, then start with --new-topic"
        )
    return report


def _after_former_outputs(settings: Settings, reader: Consumer, start: InitialOffsets) -> int:
    """Return the Unix milliseconds behind the newest record about the former topic, by Kafka's times of the records.

    No worker of the group runs, so no such record follows. The clock of this machine is no bound. If it is late,
    records about the former topic count for the same positions of the present one, and can conceal a lost outcome.

    Raises:
        BrokerRefused: that record is dated more than `_MAX_AHEAD_MS` ahead. None of the present topic's outputs would
            count until then.
    """
    topics = dict.fromkeys((*start.outputs, *start.other_outputs, *start.retry_topics))
    request = {partition: _NEWEST for topic in topics for partition in _partitions(reader, topic)}
    admin = create_client(AdminClient, admin_config(settings, logger=silent_logger()))
    newest_ms = -1
    for partition, future in admin.list_offsets(request, request_timeout=_CALL_S).items():
        try:
            newest = future.result()
        except KafkaException as error:
            if error.args[0].code() in _UNSUPPORTED:
                return time.time_ns() // 1_000_000
            right = Permission("Describe", "topic", partition.topic)
            raise refused_error(
                error, f"reading the times of {partition.topic}", admin_config(settings), right
            ) from None
        newest_ms = max(newest_ms, _checked_time(reader, partition, newest.offset, newest.timestamp))
    return newest_ms + 1


def _checked_time(reader: Consumer, partition: TopicPartition, offset: int, time_ms: int) -> int:
    """Return the time of the newest record of a partition, or the present time if that record is deleted already.

    A deleted record is the newest one for the broker until its whole segment is deleted.
    """
    now_ms = time.time_ns() // 1_000_000
    if time_ms <= now_ms + _MAX_AHEAD_MS:
        return time_ms
    low, _ = reader.get_watermark_offsets(partition, _CALL_S, cached=False)
    if offset < low:
        return now_ms
    raise BrokerRefused(
        f"{partition.topic}/{partition.partition}: the record at offset {offset} is dated"
        f" {(time_ms - now_ms) / 3_600_000:.1f} hours ahead of this machine's clock, so no outcome of the new"
        " topic would count until then. Correct the clock of this machine if it is late; otherwise delete the records"
        " up to that offset (kafka-delete-records.sh), or start after that time"
    )


def _may_begin(reader: Consumer, start: InitialOffsets, inputs: list[TopicPartition], *, chosen: bool) -> bool:
    """Return whether a group without commits starts now; False: another worker has started meanwhile.

    Raises:
        BrokerRefused: an output was written to, and the operator has not chosen to start over.
    """
    written = None if chosen or start.is_allowed else _written(reader, start.outputs)
    if written is None:
        return True
    # Read again: a worker started at the same time may have committed the start, and then written the record.
    if _has_commits(reader, inputs):
        return False
    raise BrokerRefused(
        f"group {start.group_id!r} has no committed offsets, but topic {written} has been written to already:"
        f" the group's commits have expired, or {start.key} is mistyped. To start all the same, and"
        f" {start.price}, add --from earliest, --from latest or --from and an ISO time; where a topic"
        " that the group read was deleted and created again, --new-topic, too; for unattended first starts beside"
        " other groups' records, set kafka.allow_new_group"
    )


def _replaced(
    commits: Sequence[TopicPartition], present: Mapping[str, str | None], start: InitialOffsets, *, is_accepted: bool
) -> tuple[str, ...]:
    """Return the topics that were deleted and created again.

    Kafka usually drops the commits of a deleted topic. So an input without any commit counts as one of them if the
    operator has confirmed it.

    Raises:
        BrokerRefused: the commits show such a topic, and the operator has not accepted it.
    """
    found = dict.fromkeys(start.topics if is_accepted else ())
    for commit in commits:
        metadata = parse_metadata(commit.metadata) if commit.offset >= 0 else CommitMetadata()
        if metadata.contradicts(present.get(commit.topic)):
            if not is_accepted:
                raise replaced_error(commit.topic, metadata.topic_id, present.get(commit.topic), start.group_id)
            found[commit.topic] = None
        elif commit.offset >= 0:
            found.pop(commit.topic, None)
    return tuple(found)


def _commit(settings: Settings, group_id: str, offsets: list[TopicPartition]) -> bool:
    """Set the group's offsets; return False if it has members, so that another worker was first."""
    admin = create_client(AdminClient, admin_config(settings, logger=silent_logger()))
    request = ConsumerGroupTopicPartitions(group_id, offsets)
    errors = []
    try:
        answers = coordinator_result(admin.alter_consumer_group_offsets, request, timeout_s=_CALL_S)
        errors += [answer.error for answer in answers.topic_partitions if answer.error is not None]
    except KafkaException as error:
        errors.append(error.args[0])
    for refused in errors:
        if refused.code() not in _ANOTHER_WAS_FIRST:
            right = Permission("Read", "group", group_id)
            raise refused_error(refused, f"writing the start of group {group_id}", admin_config(settings), right)
    return not errors


@contextmanager
def _reader(settings: Settings, group_id: str) -> Iterator[Consumer]:
    config = reader_config(settings, group_id, logger=silent_logger())
    try:
        reader = create_client(Consumer, config)
        try:
            yield reader
        finally:
            reader.close()
    except KafkaException as error:
        right, doing = Permission("Read", "group", group_id), f"looking for the start of group {group_id}"
        if error.args[0].code() == KafkaError._TIMED_OUT:  # noqa: SLF001 - its public name
            # Without the right to see a group the broker does not return its coordinator, and the client retries.
            raise BrokerUnavailable(
                f"{translate(error, doing)}; a missing right looks the same: does {principal(config)} have {right}?"
            ) from None
        raise refused_error(error, doing, config, right) from None


def _partitions(reader: Consumer, topic: str) -> list[TopicPartition]:
    metadata = reader.list_topics(topic, _CALL_S).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    return [TopicPartition(topic, number) for number in metadata.partitions]


def _has_commits(reader: Consumer, partitions: list[TopicPartition]) -> bool:
    return any(answer.offset >= 0 for answer in _committed(reader, partitions))


def _written(reader: Consumer, topics: tuple[str, ...]) -> str | None:
    """Return a topic that has ever been written to; None: none has.

    The high watermark shows it even if retention has deleted all records. Commits expire after 7 days by default, as
    records do, so an empty topic does not mean that no score was paid for.
    """
    for topic in dict.fromkeys(topics):
        for partition in _partitions(reader, topic):
            _, high = reader.get_watermark_offsets(partition, _CALL_S, cached=False)
            if high > 0:
                return topic
    return None


class _StartOffsets:
    """First commits: offsets with the group's start, the topic's id, and the time after the former topic's outputs."""

    def __init__(self, reader: Consumer, ids: Mapping[str, str | None], since_ms: int | None = None) -> None:
        self._reader = reader
        self._ids = ids
        self._since_ms = since_ms

    def first(self, partition: TopicPartition) -> TopicPartition:
        """Return the first offset of the log, as a commit."""
        return self._begin(partition, self._watermarks(partition)[0])

    def end(self, partition: TopicPartition) -> TopicPartition:
        """Return the offset behind the last record, as a commit."""
        return self._begin(partition, self._watermarks(partition)[1])

    def retry(self, start: InitialOffsets, partition: TopicPartition) -> TopicPartition:
        """Return the start on a retry partition, as a commit."""
        offset = start.retry_offsets.get((partition.topic, partition.partition))
        return self.end(partition) if offset is None else self._begin(partition, offset)

    def chosen(self, start: InitialOffsets, partition: TopicPartition) -> TopicPartition:
        """Return the start that the operator has chosen, as a commit."""
        if start.start_at_ms is None:
            return self.first(partition) if start.start_from == "earliest" else self.end(partition)
        at_time = TopicPartition(partition.topic, partition.partition, start.start_at_ms)
        found = self._reader.offsets_for_times([at_time], _CALL_S)[0].offset
        return self._begin(partition, found) if found >= 0 else self.end(partition)  # no record is that recent

    def _watermarks(self, partition: TopicPartition) -> tuple[int, int]:
        low, high = self._reader.get_watermark_offsets(partition, _CALL_S, cached=False)
        return low, high

    def _begin(self, partition: TopicPartition, offset: int) -> TopicPartition:
        metadata = CommitMetadata(offset, self._ids.get(partition.topic), self._since_ms)
        return TopicPartition(partition.topic, partition.partition, offset, str(metadata))
