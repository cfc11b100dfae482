"""Paused partitions of retry topics, whose first record is not due yet; other partitions continue.

Such a record is not in the ledger. So no commit passes it, and the next owner of the partition reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from stream_scorer.core.records import Partition

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_scorer.core.records import SourceRecord


class Reader(Protocol):
    """Consumer that can pause and resume single partitions; see ``kafka.consumer.group_consumer.Source``."""

    def pause_partition(self, partition: Partition) -> None:
        """Deliver nothing of a partition until ``resume_from``."""

    def resume_from(self, partition: Partition, offset: int) -> bool:
        """Deliver a partition again, from ``offset`` on; False: not possible now."""


class _Head(NamedTuple):
    offset: int
    until_ms: int


class PausedRetryPartitions:
    """Retry partitions paused until their first record is due. Owned by the loop's thread; times are Unix milliseconds.

    Args:
        reader: pauses and resumes partitions.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._heads: dict[Partition, _Head] = {}

    def __len__(self) -> int:
        return len(self._heads)

    def pause(self, head: SourceRecord, until_ms: int) -> None:
        """Pause the partition of ``head`` until that time; delivery resumes with ``head``."""
        partition = Partition(head.topic, head.partition)
        self._heads[partition] = _Head(head.offset, until_ms)
        self._reader.pause_partition(partition)

    def is_paused(self, record: SourceRecord) -> bool:
        """Return whether a record follows a head that is not due: both are read again."""
        return bool(self._heads) and (record.topic, record.partition) in self._heads

    def resume_due(self, now_ms: int) -> None:
        """Resume the partitions whose heads are due."""
        for partition, head in list(self._heads.items()):
            if head.until_ms <= now_ms and self._reader.resume_from(partition, head.offset):
                del self._heads[partition]

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """Drop the state of revoked partitions."""
        for partition in partitions:
            self._heads.pop(partition, None)
