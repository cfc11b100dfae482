"""Scan of a topic: its committed records within the bounds of a filter, with bounded memory.

The scan seeks to the first selected time or offset, so it does not read the whole topic. It joins no group and changes
nothing. An upper time bound ends the scan an hour after it: brokers accept no timestamp further ahead by default
(``message.timestamp.after.max.ms``). A record that a producer has dated back by more than that hour is not found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_scorer.errors import UsageError
from stream_scorer.kafka.admin.acls import reading_rights
from stream_scorer.kafka.admin.topics import check_topics
from stream_scorer.kafka.consumer.log_reader import LogReader, OffsetRange

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_scorer.core.desk.record_filter import Bound, RecordFilter
    from stream_scorer.core.desk.selection import OffsetBounds
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.settings import Settings

_MAX_AHEAD_MS: Final = 3_600_000


class TopicScan:
    """Scan of one topic.

    Args:
        settings: the cluster.
        topic: its topic; it must exist.
        selection: partition, times, offsets and places of the records.
        within: only these offsets of each partition; None: all that the topic has now.
        timeout_s: limit without progress, in seconds.

    Raises:
        BrokerError: Kafka cannot be reached, the topic or the right to read it is missing.
        UsageError: the topic has no such partition.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        selection: RecordFilter,
        *,
        within: Mapping[int, OffsetBounds] | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        count = check_topics(settings, [topic], rights=reading_rights(settings, [topic]))[topic]
        if selection.partition is not None and selection.partition >= count:
            raise UsageError(f"--partition {selection.partition}: topic {topic} has the partitions 0 to {count - 1}")
        self.topic = topic
        self._selection = selection
        self._partitions = range(count) if selection.partition is None else [selection.partition]
        self._log = LogReader(settings, settings.kafka.group_id, timeout_s=timeout_s)
        everything = self._log.stable_ranges(topic, count)
        self._ranges = {number: everything[number] for number in self._partitions}
        if within is not None:
            self._ranges = {n: _common(one, within[n]) for n, one in self._ranges.items() if n in within}

    def records(self) -> Iterator[SourceRecord]:
        """Yield the records of `batches` one by one."""
        for batch in self.batches():
            yield from batch

    def batches(self) -> Iterator[list[SourceRecord]]:
        """Yield the committed records that are within the bounds now, each partition's in order.

        Records whose bytes do not contain the selected contacts and events are left out. A batch may be empty, so that
        the caller can end the scan.

        Raises:
            BrokerError: the brokers stopped answering.
            NotJudged: records were deleted before they were read.
        """
        for batch in self._log.read(self.topic, self.selected_ranges()):
            # Before the headers are unpacked, which takes longer.
            found = [one for one in batch if self._selection.may_contain(one.key, one.value)]
            records = [one.as_source_record(self.topic) for one in found]
            yield [record for record in records if self._selection.is_within_bounds(record)]

    def follow(self) -> Iterator[list[SourceRecord]]:
        """Yield batches of the records within the bounds, and of those that are committed later, without an end.

        A batch may be empty, so that the caller can end the scan.

        Raises:
            BrokerRefused: a right is missing, or the topic was deleted.
            NotJudged: records were deleted before they were read.
        """
        begins = {number: extent.begin for number, extent in self.selected_ranges().items()}
        for batch in self._log.follow(self.topic, begins):
            records = [one.as_source_record(self.topic) for one in batch]
            yield [record for record in records if self._selection.is_within_bounds(record)]

    def selected_ranges(self) -> dict[int, OffsetRange]:
        """Return the offsets to read of each partition, found by its timestamps."""
        selection = self._selection
        begins = self._first_offsets(selection.since, 0)
        ends = self._first_offsets(selection.until, _MAX_AHEAD_MS)
        ranges = {}
        for number, extent in self._ranges.items():
            begin = extent.begin if selection.since is None else begins.get(number, extent.end)
            end = extent.end if selection.until is None else ends.get(number, extent.end)
            begin = min(max(begin, extent.begin), extent.end)
            ranges[number] = OffsetRange(begin, max(begin, min(end, extent.end)))
        return self._around_places(ranges)

    def _first_offsets(self, bound: Bound | None, extra_ms: int) -> dict[int, int]:
        """Return the first offset at or after a bound in each partition that has one."""
        if bound is None:
            return {}
        if bound.time_ms is not None:
            return self._log.first_offsets(self.topic, self._partitions, bound.time_ms + extra_ms)
        return dict.fromkeys(self._partitions, bound.offset or 0)

    def _around_places(self, ranges: dict[int, OffsetRange]) -> dict[int, OffsetRange]:
        """Return the ranges reduced to the selected places, if all of these are on this topic."""
        offsets = self._selection.offsets_of(self.topic)
        if not offsets or len(offsets) < len(self._selection.places):
            return ranges
        reduced = {}
        for number, extent in ranges.items():
            wanted = [offset for partition, offset in offsets if partition == number]
            if wanted:
                begin = max(extent.begin, min(wanted))
                reduced[number] = OffsetRange(begin, max(begin, min(extent.end, max(wanted) + 1)))
        return reduced


def _common(one: OffsetRange, other: OffsetBounds) -> OffsetRange:
    begin = min(max(one.begin, other.begin), one.end)
    return OffsetRange(begin, max(begin, min(one.end, other.end)))
