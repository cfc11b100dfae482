"""Where a group begins on a partition, and where it reads on: from the group's commits only (contract, section 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

from stream_scorer.core.exactly_once.commit_metadata import parse_metadata
from stream_scorer.errors import BrokerRefused

if TYPE_CHECKING:
    from confluent_kafka import Consumer, TopicPartition


def start_and_next_offset(consumer: Consumer, committed: TopicPartition, timeout_s: float) -> tuple[int, int]:
    """Return where the group began and the offset to read next; without a commit both are the log's first.

    Raises:
        KafkaException: the commit could not be read.
        BrokerRefused: the committed offset is not in the log any more.
    """
    if committed.error is not None:
        raise KafkaException(committed.error)
    low, high = consumer.get_watermark_offsets(committed, timeout_s, cached=False)
    if committed.offset < 0:
        return low, low
    if not low <= committed.offset <= high:
        raise BrokerRefused(
            f"{committed.topic}/{committed.partition}: the group's committed offset {committed.offset} is not in the"
            f" log, which holds {low} to {high}; records were deleted before they were read. Set the group's offset by"
            " hand (docs/operations.md, 'Offsets gone') once you have decided what becomes of them"
        )
    start = parse_metadata(committed.metadata).start
    return committed.offset if start is None else start, committed.offset
