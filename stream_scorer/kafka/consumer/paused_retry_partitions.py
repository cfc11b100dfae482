"""Paused partitions of retry topics, whose first record is not due yet; other partitions continue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.core.records import Partition
from stream_scorer.kafka.consumer.paused_partitions import PausedPartitions

if TYPE_CHECKING:
    from stream_scorer.core.records import SourceRecord


class PausedRetryPartitions(PausedPartitions[int]):
    """Retry partitions paused until their first record is due; the reason is that time in Unix milliseconds."""

    def pause(self, record: SourceRecord, until_ms: int) -> None:
        """Pause the partition of ``record`` until that time; delivery resumes with ``record``."""
        self.pause_at(Partition(record.topic, record.partition), record.offset, until_ms)

    def resume_due(self, now_ms: int) -> None:
        """Resume the partitions whose first record is due."""
        self.resume_if(lambda _, until_ms: until_ms <= now_ms)
