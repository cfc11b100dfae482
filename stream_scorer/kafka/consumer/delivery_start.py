"""Start of a new delivery group: it continues where a former group stopped, and delivers no callback again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_scorer.core.callbacks.delivery_start import RetryRecord, waiting_callbacks
from stream_scorer.errors import BrokerRefused
from stream_scorer.kafka.admin.topics import check_topics
from stream_scorer.kafka.consumer.initial_offsets import InitialOffsets, has_commits
from stream_scorer.kafka.consumer.log_reader import LogReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from stream_scorer.core.callbacks.delivery_start import WaitingCallbacks
    from stream_scorer.kafka.consumer.log_reader import OffsetRange, Record
    from stream_scorer.settings import Settings

_TIMEOUT_S: Final = 60.0
# Written by deliverers only, see `callbacks.output_records`.
ROUNDS_HEADER: Final = "stream-scorer-failed-rounds"


def delivery_start(settings: Settings, retry_topics: Sequence[str]) -> InitialOffsets:
    """Return the start of the deliverer's group.

    A new group starts on the callbacks topic at ``kafka.start_from``. On the retry topics it starts at the first
    callback that waits there without a receipt, so a group that was renamed continues where the former one stopped.

    Raises:
        BrokerRefused: the group is new, and callbacks from its start on have a receipt or wait in a retry topic.
        BrokerUnavailable: no answer within the time limit.
    """
    kafka, topics, group_id = settings.kafka, settings.topics, settings.delivery_group_id
    partitions = check_topics(settings, [topics.callbacks, *retry_topics, topics.receipts])
    log = LogReader(settings, group_id, timeout_s=_TIMEOUT_S)
    starts: dict[tuple[str, int], int] = {}
    if not has_commits(settings, group_id, topics.callbacks):
        ranges = {topic: log.stable_ranges(topic, number) for topic, number in partitions.items()}
        finished = {one.key for one in _read(log, topics.receipts, ranges) if one.key is not None}
        records = [
            RetryRecord(topic, one.partition, one.offset, one.key, one.timestamp_ms)
            for topic in retry_topics
            for one in _read(log, topic, ranges)
            if one.key is not None and any(name == ROUNDS_HEADER for name, _ in one.headers)
        ]
        if finished or records:
            waiting = waiting_callbacks(records, finished)
            starts = waiting.starts
            _refuse_repeats(settings, waiting, finished, _read(log, topics.callbacks, ranges))
        else:  # no deliverer has ever written anything: other programs may have
            starts = {(topic, number): one.begin for topic in retry_topics for number, one in ranges[topic].items()}
    return InitialOffsets(
        group_id=group_id,
        topics=(topics.callbacks,),
        start_from=kafka.start_from,
        start_at_ms=kafka.start_at_ms,
        outputs=(),
        key="callbacks.group_id",
        price="repeat callbacks",
        is_allowed=True,
        retry_topics=tuple(retry_topics),
        retry_offsets=starts,
    )


def _read(log: LogReader, topic: str, ranges: Mapping[str, Mapping[int, OffsetRange]]) -> Iterator[Record]:
    for batch in log.read(topic, ranges[topic]):
        yield from batch


def _refuse_repeats(
    settings: Settings, waiting: WaitingCallbacks, finished: set[bytes], planned: Iterable[Record]
) -> None:
    repeated = set(waiting.repeated)
    if settings.kafka.start_from != "latest":
        since_ms = settings.kafka.start_at_ms or 0
        known = finished | waiting.keys
        repeated |= {one.key for one in planned if one.timestamp_ms >= since_ms and one.key in known}
    if repeated:
        raise BrokerRefused(
            f"group {settings.delivery_group_id!r} has no committed offsets, and {len(repeated)} callbacks from its"
            " start on have a receipt or wait in a retry topic: they would be delivered again. Set callbacks.group_id"
            " back to the former group; or start with --from latest, or --from and an ISO time after the former"
            " group's end: what waits in the retry topics is delivered all the same"
        )
