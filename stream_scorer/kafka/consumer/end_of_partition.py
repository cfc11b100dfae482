"""Read position of each partition, and the end offset that a read_committed consumer can reach."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stream_scorer.core.records import Partition


class EndOfPartitionTracker:
    """Per partition: the offset behind the last delivered record, and that of the last end-of-partition event."""

    def __init__(self) -> None:
        self._next_offsets: dict[tuple[str, int], int] = {}
        self._eof_offsets: dict[tuple[str, int], int] = {}

    def seek(self, partition: Partition, offset: int) -> None:
        """Set the read position, whatever was read before."""
        self._next_offsets[partition] = offset
        self._eof_offsets.pop(partition, None)

    def delivered(self, topic: str, number: int, next_offset: int) -> None:
        """Move the read position of a partition behind a delivered record."""
        self._next_offsets[topic, number] = next_offset

    def eof_at(self, message: Any) -> None:
        """Record an end-of-partition event: the client has no record from its offset on."""
        self._eof_offsets[message.topic(), message.partition()] = message.offset()

    def commit_offset(self, partition: Partition, next_offset: int) -> int:
        """Return the offset to commit once every record below ``next_offset`` is finished.

        If none was delivered from there on, it is that of the end-of-partition event: behind the transaction markers
        and aborted records at the end of the log. A commit before a marker is below the log's first offset once
        retention has deleted all records. The next worker would stop, as if records had been deleted unread.
        """
        if self._next_offsets.get(partition, math.inf) > next_offset:
            return next_offset
        return max(next_offset, self._eof_offsets.get(partition, -1))

    def end_offset(self, partition: Partition, end: int) -> int:
        """Return the offset behind the last deliverable record; ``end``: the end of the log.

        Transaction markers and aborted records at the end of the log are never delivered, and are no lag.
        """
        if self._eof_offsets.get(partition, -1) >= end:
            return self._next_offsets.get(partition, end)
        return end
