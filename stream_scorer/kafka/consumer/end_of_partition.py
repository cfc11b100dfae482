"""How far reading has come, and what an end of the log says about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stream_scorer.core.records import Partition, SourceRecord


class EndOfPartitionTracker:
    """For each partition, behind the last record that was delivered, and where there is nothing more."""

    def __init__(self) -> None:
        self._next_offsets: dict[tuple[str, int], int] = {}
        self._eof_offsets: dict[tuple[str, int], int] = {}

    def seek(self, partition: Partition, offset: int) -> None:
        """Reading goes on there, whatever was read before."""
        self._next_offsets[partition] = offset
        self._eof_offsets.pop(partition, None)

    def read(self, record: SourceRecord) -> None:
        """A record was delivered."""
        self._next_offsets[record.topic, record.partition] = record.next_offset

    def eof_at(self, message: Any) -> None:
        """The client has said, with this message, that there is no record from its offset on."""
        self._eof_offsets[message.topic(), message.partition()] = message.offset()

    def end_offset(self, partition: Partition, end: int) -> int:
        """Return the offset behind the last record that anybody gets; ``end``: behind the last one in the log.

        Markers of transactions, and records that were aborted, are none: nobody gets them, and they wait for nobody.
        """
        if self._eof_offsets.get(partition, -1) >= end:
            return self._next_offsets.get(partition, end)
        return end
