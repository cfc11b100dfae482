"""Start of a new delivery group: which callbacks in the log wait, and which would be delivered again.

A callback waits in the last record that was written for it, unless it has a receipt. A callback that is delivered again
by an operator's decision counts as another one, whose receipts name the decision, too. Each retry partition is
committed in order, so what waits stands behind all that was finished: the first waiting record is where the former
group stopped.

The log has callbacks of many days, so only those of one `CallbackPart` are in memory at a time.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple


class CallbackRecord(NamedTuple):
    """Record of a callback in a topic.

    Attributes:
        topic: its topic.
        partition: its partition.
        offset: its offset.
        key: the callback's id.
        written_ms: Kafka's timestamp.
        decision: id of the decision to deliver the callback again; empty: it is the first delivery, as it was planned.
    """

    topic: str
    partition: int
    offset: int
    key: bytes
    written_ms: int
    decision: bytes = b""

    @property
    def delivery(self) -> bytes:
        """What identifies the delivery: each decision to deliver a callback again has receipts of its own."""
        return self.key + self.decision

    @property
    def _age(self) -> tuple[int, str, int]:
        return self.written_ms, self.topic, self.offset

    def is_newer(self, other: CallbackRecord) -> bool:
        """Return whether this record was written after the other one."""
        return self._age > other._age


class RetryStarts:
    """Offsets in the retry partitions, collected from one `CallbackPart` after the other.

    Attributes:
        first_waiting: for each retry partition with a waiting callback, the offset of the first.
        repeated: number of planned callbacks that have a receipt or wait.
    """

    def __init__(self) -> None:
        self.first_waiting: dict[tuple[str, int], int] = {}
        self.repeated = 0
        self._last_finished: dict[tuple[str, int], int] = {}

    def add_waiting(self, record: CallbackRecord) -> None:
        """Count a record in which a callback waits."""
        place = (record.topic, record.partition)
        self.first_waiting[place] = min(record.offset, self.first_waiting.get(place, record.offset))

    def add_finished(self, record: CallbackRecord) -> None:
        """Count a record whose callback has a receipt or a newer record."""
        place = (record.topic, record.partition)
        self._last_finished[place] = max(record.offset, self._last_finished.get(place, record.offset))

    @property
    def repeated_partitions(self) -> int:
        """Number of retry partitions with a finished record behind the first waiting one."""
        return sum(offset < self._last_finished.get(place, -1) for place, offset in self.first_waiting.items())


class CallbackPart:
    """The deliveries of one hash class of keys: those that are planned, and the last retry record of each.

    Add what is planned and retried first, then the receipts.

    Args:
        starts: where the result is added.
        number: the class, from 0 to ``parts`` - 1.
        parts: number of classes.
    """

    def __init__(self, starts: RetryStarts, number: int = 0, parts: int = 1) -> None:
        self._starts = starts
        self._number = number
        self._parts = parts
        self._planned: set[bytes] = set()
        self._last: dict[bytes, CallbackRecord] = {}

    def __len__(self) -> int:
        return len(self._planned) + len(self._last)

    def halves(self) -> tuple[CallbackPart, CallbackPart]:
        """Return two classes, empty, that have the keys of this one."""
        parts = 2 * self._parts
        numbers = (self._number, self._number + self._parts)
        first, second = (CallbackPart(self._starts, number, parts) for number in numbers)
        return first, second

    def add_planned(self, record: CallbackRecord) -> None:
        """Add a record that the new group reads on the callbacks topic."""
        if self._has(record.delivery):
            self._planned.add(record.delivery)

    def add_retry(self, record: CallbackRecord) -> None:
        """Add a record of a retry topic."""
        if not self._has(record.delivery):
            return
        last = self._last.get(record.delivery)
        if last is None:
            self._last[record.delivery] = record
        elif record.is_newer(last):
            self._last[record.delivery] = record
            self._starts.add_finished(last)
        else:
            self._starts.add_finished(record)

    def add_receipt(self, receipt: CallbackRecord) -> None:
        """Add a receipt: its callback waits no more."""
        if (last := self._last.pop(receipt.delivery, None)) is not None:
            self._starts.add_finished(last)
        if receipt.delivery in self._planned:
            self._planned.remove(receipt.delivery)
            self._starts.repeated += 1

    def end(self) -> None:
        """Add what is left to the starts: it waits."""
        for record in self._last.values():
            self._starts.add_waiting(record)
        self._starts.repeated += len(self._planned & self._last.keys())

    def _has(self, key: bytes) -> bool:
        return zlib.crc32(key) % self._parts == self._number
