"""Intake of retry topics: whether a record is due, deferred again or skipped, by its headers alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.core.retry_topics import NotDue, RetryDelays, StartBounds, state_of
from stream_scorer.core.scoring.types import Deferred, Skipped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.records import SourceRecord


class RetryIntake:
    """Router of single records of retry topics.

    Args:
        levels: the level of each retry topic.
        group_id: the consumer group; records of other groups are skipped.
        delays: how long the first record of a topic may pause its partition.
        bounds: which records of this group are from before its start.
    """

    def __init__(self, levels: Mapping[str, int], group_id: str, delays: RetryDelays, bounds: StartBounds) -> None:
        self._levels = levels
        self._group_id = group_id
        self._delays = delays
        self._bounds = bounds

    def __contains__(self, topic: str) -> bool:
        return topic in self._levels

    def examine(self, record: SourceRecord, now_ms: int) -> SourceRecord | NotDue | Deferred | Skipped:
        """Return the record with its origin if it is due, otherwise why and how it is not."""
        state = state_of(record)
        if state.group is not None and (state.group != self._group_id or self._bounds.exclude(record, state.source)):
            return Skipped(record)
        level = self._levels[record.topic]
        step = self._delays.next_step(level, state.not_before_ms, written_ms=record.timestamp_ms, now_ms=now_ms)
        if isinstance(step, NotDue):
            return step
        source = state.source
        if self._bounds.is_of_former_topic(record, source):
            # Its source position is a record of the present topic by now. It is identified by its own position instead.
            source = f"{record.topic}/{record.partition}/{record.offset}"
        origin = record._replace(origin=source)
        if step is None:
            return origin
        return Deferred(origin, "", state.rounds, step.level, state.not_before_ms, state.held)
