"""Records of a topic that a group has not finished: those above its commits on the present topic of that name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.kafka.consumer.log_reader import OffsetRange

if TYPE_CHECKING:
    from stream_scorer.kafka.consumer.log_reader import LogReader


def commits_of(log: LogReader, topic: str, partitions: int) -> tuple[dict[int, int], bool]:
    """Return the committed offsets of the present topic, and whether there are some of a former one of this name.

    Raises:
        BrokerError: a right is missing, or Kafka does not answer within the time limit of ``log``.
    """
    commits = log.commits(topic, partitions)
    present_id = log.topic_id(topic) if any(one.topic_id is not None for one in commits.values()) else None
    valid = {
        number: one.offset
        for number, one in commits.items()
        if present_id is None or one.topic_id is None or one.topic_id == present_id
    }
    return valid, len(valid) < len(commits)


def uncommitted_ranges(log: LogReader, topic: str, partitions: int) -> dict[int, OffsetRange]:
    """Return the offsets of a topic from the group's commits to the last stable offset.

    Raises:
        BrokerError: as `commits_of`.
    """
    commits, _ = commits_of(log, topic, partitions)
    ranges = {}
    for number, one in log.stable_ranges(topic, partitions).items():
        begin = max(one.begin, commits.get(number, one.begin))
        ranges[number] = OffsetRange(begin, max(begin, one.end))
    return ranges
