"""Offset ledger: for every assigned partition, the records read, the outcomes found, and the offsets to commit.

Four offsets, always in this order::

    start ≤ committed ≤ committable ≤ next to read

- *start*: the consumer group's first offset on the partition. Every commit repeats it as metadata.
- *committed*: every record below it has been published by a transaction whose commit was confirmed.
- *committable*: every record below it has an outcome. The next transaction may publish up to it. A finished record
  behind an unfinished one waits, so the outputs of a partition are in the order of its inputs.
- *next to read*: the position. It covers records that were delivered but not finished, so it is never committed.

Ownership. Each assignment of a partition gets a new token. A batch is published only while its token is current,
because the broker accepts offsets of a partition that the worker no longer owns. A revoked partition loses its records
but not its outcomes that needed a request: a bounded cache keeps them by record, and they are used if the record is
read again.

A transaction whose outcome is unknown changes nothing here until ``resolve`` gets the committed offsets.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Generic, NamedTuple, cast

from stream_scorer.core.exactly_once.outcome_cache import OutcomeCache, OutcomeT
from stream_scorer.core.exactly_once.stall_detector import CommitPosition
from stream_scorer.core.records import Partition, RecordKey, SourceRecord, is_same_record, key_of, size_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class CommittableBatch(NamedTuple, Generic[OutcomeT]):
    """The outcomes of one partition that one transaction publishes, in input order.

    ``size``: bytes of keys, values and headers of the records.
    """

    partition: Partition
    token: int
    start_offset: int
    next_offset: int
    outcomes: list[OutcomeT]
    size: int = 0


@dataclass(slots=True)
class _Assignment(Generic[OutcomeT]):
    """One assignment of one partition."""

    token: int
    start_offset: int
    next_to_read: int
    rows: deque[SourceRecord]
    sizes: deque[int]  # of the rows, in bytes
    finished: dict[int, OutcomeT]
    pending: dict[int, SourceRecord]
    bytes: int = 0


class OffsetLedger(Generic[OutcomeT]):
    """Ledger for any type of outcome; see the module docstring. Not thread-safe: one thread owns it.

    Args:
        remembered_limit: maximum number of cached outcomes of revoked partitions, the oldest evicted first.
        remembered_bytes_limit: maximum bytes of keys, values and headers of their records together.

    Attributes:
        uncommitted: number of records that are not committed yet.
        uncommitted_bytes: bytes of their keys, values and headers.
        releases: how often committed records or a revoked partition were removed. Only then does room become free.
    """

    def __init__(self, remembered_limit: int = 32_000, remembered_bytes_limit: int = 64 * 1024 * 1024) -> None:
        self._assigned: dict[Partition, _Assignment[OutcomeT]] = {}
        # The same dict. A plain tuple finds a partition, too, and costs a third of a `Partition` for each record.
        self._by_place = cast("dict[tuple[str, int], _Assignment[OutcomeT]]", self._assigned)
        self._remembered: OutcomeCache[OutcomeT] = OutcomeCache(remembered_limit, remembered_bytes_limit)
        self._orphans: dict[RecordKey, SourceRecord] = {}
        self._tokens = 0
        self.uncommitted = 0
        self.uncommitted_bytes = 0
        self.releases = 0

    # --- ownership

    def assign(self, partition: Partition, *, start_offset: int, next_offset: int) -> int:
        """Start an assignment that reads from ``next_offset``; return its token."""
        if partition in self._assigned:
            self.revoke(partition)
        self._tokens += 1
        self._assigned[partition] = _Assignment(self._tokens, start_offset, next_offset, deque(), deque(), {}, {})
        return self._tokens

    def revoke(self, partition: Partition, asked: Iterable[SourceRecord] = ()) -> None:
        """End an assignment: discard its records, cache its outcomes that needed a request.

        Args:
            partition: the revoked partition; an unknown one is no error (it may be lost before it was assigned).
            asked: its records whose requests are in flight. If one is read again before the response, it waits for that
                response instead of being sent twice.
        """
        owned = self._assigned.pop(partition, None)
        if owned is None:
            return
        self.releases += 1
        self.uncommitted -= len(owned.rows)
        self.uncommitted_bytes -= owned.bytes
        for outcome in owned.finished.values():
            self._remembered.put(outcome)
        for record in asked:
            if _is_pending(owned, record):
                self._orphans[key_of(record)] = record

    def is_assigned(self, batch: CommittableBatch[OutcomeT]) -> bool:
        """Return whether the assignment that this batch was taken from is still current."""
        owned = self._assigned.get(batch.partition)
        return owned is not None and owned.token == batch.token

    def is_partition_assigned(self, partition: Partition) -> bool:
        """Return whether a partition is assigned now."""
        return partition in self._assigned

    @property
    def partitions(self) -> list[Partition]:
        """The assigned partitions."""
        return list(self._assigned)

    def next_to_read(self, partition: Partition) -> int | None:
        """Return the position on a partition; None: it is not assigned."""
        owned = self._assigned.get(partition)
        return None if owned is None else owned.next_to_read

    def size(self, partition: Partition) -> tuple[int, int]:
        """Return how many records of a partition are not committed yet, and the bytes of keys, values and headers."""
        owned = self._assigned.get(partition)
        return (len(owned.rows), owned.bytes) if owned is not None else (0, 0)

    def commit_positions(self) -> list[CommitPosition]:
        """Return the commit positions of the assigned partitions."""
        return [
            CommitPosition(partition, self._committed(owned), owned.rows[0].timestamp_ms if owned.rows else None)
            for partition, owned in self._assigned.items()
        ]

    # --- records

    def read(self, record: SourceRecord) -> bool:
        """Add a record that was just consumed. Return whether its outcome is still to be found.

        False: its partition is not assigned, it was read before, its outcome is remembered from an earlier assignment,
        or its request is already in flight.
        """
        owned = self._by_place.get((record.topic, record.partition))
        if owned is None or record.offset < owned.next_to_read:
            return False
        owned.next_to_read = record.offset + 1
        size = size_of(record)
        owned.rows.append(record)
        owned.sizes.append(size)
        owned.bytes += size
        self.uncommitted += 1
        self.uncommitted_bytes += size
        if self._remembered or self._orphans:
            outcome = self._remembered.pop(record)
            if outcome is not None:
                owned.finished[record.offset] = outcome
                return False
            orphan = self._orphans.pop(key_of(record), None)
            if orphan is not None and is_same_record(orphan, record):
                owned.pending[record.offset] = record
                return False
        owned.pending[record.offset] = record
        return True

    def finish(self, outcome: OutcomeT) -> None:
        """Record an outcome: cached if its partition was revoked, ignored if the record already has one."""
        record = outcome.record
        offset = record.offset
        owned = self._by_place.get((record.topic, record.partition))
        if owned is not None and (owned.pending.get(offset) is record or _is_pending(owned, record)):
            del owned.pending[offset]
            owned.finished[offset] = outcome
        elif self._orphans.pop(key_of(record), None) is not None:
            self._remembered.put(outcome)

    def is_pending(self, record: SourceRecord) -> bool:
        """Return whether a record is assigned and has no outcome, so that a request for it is worth its price."""
        owned = self._assigned.get(Partition(record.topic, record.partition))
        return owned is not None and _is_pending(owned, record)

    def drop(self, record: SourceRecord) -> None:
        """Discard a record of a revoked partition: no request for it is left, so there is no response to cache."""
        self._orphans.pop(key_of(record), None)

    def has_pending(self, partitions: Iterable[Partition]) -> bool:
        """Return whether one of these partitions has a record without an outcome."""
        return any(owned.pending for p in partitions if (owned := self._assigned.get(p)) is not None)

    def has_requested_outcome_blocked(self, partitions: Iterable[Partition] | None = None) -> bool:
        """Return whether an outcome that needed a request is behind a record without one, and cannot be published."""
        owned = (
            self._assigned.values()
            if partitions is None
            else [self._assigned[p] for p in partitions if p in self._assigned]
        )
        for one in owned:
            first = next(iter(one.pending), None)  # records are read, and so added, in order
            if first is not None and any(at > first and outcome.needed_request for at, outcome in one.finished.items()):
                return True
        return False

    @property
    def requested_uncommitted(self) -> int:
        """Number of outcomes that needed a request and are not committed: the next owner sends it again."""
        return sum(outcome.needed_request for owned in self._assigned.values() for outcome in owned.finished.values())

    # --- transactions

    def has_committable(self) -> bool:
        """Return whether there is anything to publish."""
        return any(owned.rows and owned.rows[0].offset in owned.finished for owned in self._assigned.values())

    def committable_count(self) -> int:
        """Return the number of outcomes that can be published now."""
        count = 0
        for owned in self._assigned.values():
            first = next(iter(owned.pending), None)  # records are read, and so added, in order
            rows = owned.rows
            count += len(rows) if first is None else bisect_left(rows, first, key=attrgetter("offset"))
        return count

    def committable(self, limit: int, max_bytes: float = math.inf) -> list[CommittableBatch[OutcomeT]]:
        """Return the committable batches within the limits of outcomes and record bytes; they stay in the ledger.

        Partitions of the last transaction come last, so that small limits starve none. The first outcome is always
        within the limits, whatever its size.
        """
        batches: list[CommittableBatch[OutcomeT]] = []
        for partition, owned in self._assigned.items():
            outcomes: list[OutcomeT] = []
            finished, size = owned.finished, 0
            for record, record_bytes in zip(owned.rows, owned.sizes, strict=True):
                outcome = finished.get(record.offset)
                if outcome is None or len(outcomes) >= limit:
                    break
                size += record_bytes
                if size > max_bytes and (outcomes or batches):
                    size -= record_bytes
                    break
                outcomes.append(outcome)
            if outcomes:
                limit -= len(outcomes)
                max_bytes -= size
                next_offset = outcomes[-1].record.next_offset
                batches.append(
                    CommittableBatch(partition, owned.token, owned.start_offset, next_offset, outcomes, size)
                )
            if limit <= 0 or max_bytes <= 0:
                break
        return batches

    def empty_batches(self) -> list[CommittableBatch[OutcomeT]]:
        """Return a batch without outcomes for each partition, at the committed offset."""
        return [
            CommittableBatch(partition, owned.token, owned.start_offset, self._committed(owned), [])
            for partition, owned in self._assigned.items()
        ]

    def replace(self, outcome: OutcomeT) -> None:
        """Replace a finished, uncommitted outcome whose record the broker rejects."""
        record = outcome.record
        owned = self._assigned.get(Partition(record.topic, record.partition))
        if owned is not None and record.offset in owned.finished:
            owned.finished[record.offset] = outcome

    def mark_committed(self, batches: Iterable[CommittableBatch[OutcomeT]]) -> None:
        """Record that the transaction with these batches is committed, up to their ``next_offset``."""
        batches = list(batches)
        self.resolve({batch.partition: batch.next_offset for batch in batches})
        self.put_last(batch.partition for batch in batches)

    def put_last(self, partitions: Iterable[Partition]) -> None:
        """Put partitions behind the others, for the next `committable`."""
        for partition in partitions:
            if partition in self._assigned:
                self._assigned[partition] = self._assigned.pop(partition)

    def resolve(self, committed: Mapping[Partition, int]) -> None:
        """Resolve transactions with an unknown outcome by the committed offsets; the rest stays to be published.

        Records below a committed offset are done, even if they were never read here: another worker may have published
        them before this worker got the rebalance. They are not read any more.
        """
        for partition, offset in committed.items():
            self._drop_below(partition, offset)
            owned = self._assigned.get(partition)
            if owned is not None:
                owned.next_to_read = max(owned.next_to_read, offset)

    # --- private

    @staticmethod
    def _committed(owned: _Assignment[OutcomeT]) -> int:
        return owned.rows[0].offset if owned.rows else owned.next_to_read

    def _drop_below(self, partition: Partition, offset: int) -> None:
        owned = self._assigned.get(partition)
        if owned is None:
            return
        rows, sizes = owned.rows, owned.sizes
        before, done_bytes = len(rows), 0
        while rows and rows[0].offset < offset:
            record = rows.popleft()
            done_bytes += sizes.popleft()
            if owned.finished.pop(record.offset, None) is None:
                owned.pending.pop(record.offset, None)
        self.releases += 1
        owned.bytes -= done_bytes
        self.uncommitted -= before - len(rows)
        self.uncommitted_bytes -= done_bytes


def _is_pending(owned: _Assignment[OutcomeT], record: SourceRecord) -> bool:
    mine = owned.pending.get(record.offset)
    return mine is not None and is_same_record(mine, record)
