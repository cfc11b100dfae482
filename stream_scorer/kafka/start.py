"""Where a new group starts: written for every partition before any worker subscribes (contract, ``kafka.start_from``).

Without that, each partition's start would be decided when it is first assigned, with ``latest`` later for some workers
than for others, and the records in between would be skipped for good.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from stream_scorer.errors import BrokerRefused, BrokerUnavailable
from stream_scorer.kafka.config import admin_config, reader_config, silent_logger
from stream_scorer.kafka.errors import translate
from stream_scorer.kafka.source import start_metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_scorer.settings import Settings

_CALL_S: Final = 10.0
_RETRY_S: Final = 0.5
# An active group refuses to have its offsets set: another worker was first, and has written its start.
_ANOTHER_WAS_FIRST: Final = frozenset({KafkaError.UNKNOWN_MEMBER_ID, KafkaError.NON_EMPTY_GROUP})


def write_start(settings: Settings, *, chosen: bool, patience_s: float = 30.0) -> None:
    """Commits the start of a group that has no commit yet; does nothing for any other.

    Args:
        settings: ``kafka.start_from`` says where; ``topics.features`` what.
        chosen: whether the operator has named the start in this very call (``--from``).
        patience_s: how long a cluster that does not answer is asked again.

    Raises:
        BrokerRefused: the group is new although its outputs hold records already. Its commits have expired, or its name
            was mistyped: starting would buy every score again, so the operator has to say that it is meant.
        BrokerUnavailable: no answer for ``patience_s``; on a new cluster the coordinator takes a moment to be there.
    """
    give_up_at = time.monotonic() + patience_s
    while True:
        try:
            _write_start(settings, chosen=chosen)
        except BrokerUnavailable:
            if time.monotonic() >= give_up_at:
                raise
            time.sleep(_RETRY_S)
        else:
            return


def _write_start(settings: Settings, *, chosen: bool) -> None:
    with _reader(settings) as reader:
        partitions = _partitions(reader, settings.topics.features)
        if any(answer.offset >= 0 for answer in reader.committed(partitions, _CALL_S)):
            return
        if not chosen and _holds_records(reader, settings.topics.scores):
            raise BrokerRefused(
                f"group {settings.kafka.group_id!r} has no committed offsets, but topic {settings.topics.scores} holds "
                "records already: its commits have expired, or kafka.group_id is mistyped. To start all the same, and "
                "pay for what may be scored already, say where with --from earliest, latest or an ISO time"
            )
        starts = [_start(reader, settings, partition) for partition in partitions]
    _commit(settings, starts)


def _commit(settings: Settings, starts: list[TopicPartition]) -> None:
    admin = AdminClient(admin_config(settings, logger=silent_logger()))
    request = ConsumerGroupTopicPartitions(settings.kafka.group_id, starts)
    try:
        for future in admin.alter_consumer_group_offsets([request], request_timeout=_CALL_S).values():
            errors = [answer.error for answer in future.result().topic_partitions if answer.error is not None]
            _raise_first(errors, settings)
    except KafkaException as error:
        _raise_first([error.args[0]], settings)


def _raise_first(errors: list[KafkaError], settings: Settings) -> None:
    for error in errors:
        if error.code() not in _ANOTHER_WAS_FIRST:
            raise translate(error, f"writing the start of group {settings.kafka.group_id}")


@contextmanager
def _reader(settings: Settings) -> Iterator[Consumer]:
    config = reader_config(settings, settings.kafka.group_id, logger=silent_logger())
    try:
        reader = Consumer(config)
        try:
            yield reader
        finally:
            reader.close()
    except KafkaException as error:
        raise translate(error, f"looking for the start of group {settings.kafka.group_id}") from None


def _partitions(reader: Consumer, topic: str) -> list[TopicPartition]:
    metadata = reader.list_topics(topic, _CALL_S).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    return [TopicPartition(topic, number) for number in metadata.partitions]


def _holds_records(reader: Consumer, topic: str) -> bool:
    for partition in _partitions(reader, topic):
        low, high = reader.get_watermark_offsets(partition, _CALL_S, cached=False)
        if high > low:
            return True
    return False


def _start(reader: Consumer, settings: Settings, partition: TopicPartition) -> TopicPartition:
    low, high = reader.get_watermark_offsets(partition, _CALL_S, cached=False)
    start_at_ms = settings.kafka.start_at_ms
    if start_at_ms is not None:
        asked = TopicPartition(partition.topic, partition.partition, start_at_ms)
        found = reader.offsets_for_times([asked], _CALL_S)[0].offset
        offset = found if found >= 0 else high  # no record that late yet
    else:
        offset = low if settings.kafka.start_from == "earliest" else high
    return TopicPartition(partition.topic, partition.partition, offset, start_metadata(offset))
