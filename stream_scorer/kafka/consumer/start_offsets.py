"""Start and next offset of a group on a partition, from the group's commits only (contract, section 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

from stream_scorer.core.exactly_once.commit_metadata import parse_metadata
from stream_scorer.doc_pages import docs_command
from stream_scorer.errors import BrokerRefused

if TYPE_CHECKING:
    from confluent_kafka import Consumer, TopicPartition


def start_and_next_offset(consumer: Consumer, committed: TopicPartition, timeout_s: float) -> tuple[int, int]:
    """Return the offset at which the group started and the offset to read next; without a commit, the log's first.

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
            f" hand ({docs_command('operations', 'offsets-gone')}) after you have decided how to handle them"
        )
    start = parse_metadata(committed.metadata).start
    return committed.offset if start is None else start, committed.offset
