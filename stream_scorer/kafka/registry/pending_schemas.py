"""Records whose writer's schema is not fetched yet: their partitions are paused, all others continue.

Such a record is not in the ledger. So no commit passes it, a revocation or a stop has nothing to undo, and the next
owner of the partition reads it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from stream_scorer.core.avro.confluent import schema_id_of
from stream_scorer.core.records import Partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stream_scorer.core.exactly_once.offset_ledger import OffsetLedger
    from stream_scorer.core.records import SourceRecord


class Reader(Protocol):
    """Consumer that can pause and resume single partitions; see ``kafka.consumer.group_consumer.Source``."""

    def pause_partition(self, partition: Partition) -> None:
        """Deliver nothing of a partition until ``resume_from``."""

    def resume_from(self, partition: Partition, offset: int) -> bool:
        """Deliver a partition again, from ``offset`` on; False: not possible now."""


class SchemaLookup(Protocol):
    """Background lookup of schemas; see ``kafka.registry.schema_fetcher.SchemaFetcher``."""

    def request(self, schema_id: int, *, ahead: bool = False) -> None:
        """Fetch the schema of an id; ``ahead``: no partition is paused for it yet."""

    def is_answered(self, schema_id: int) -> bool:
        """Return whether the lookup of an id has ended."""

    def error_for(self, schema_id: int) -> str:
        """Return why the lookup of an id has not ended; empty: without a failure so far."""

    def mark_resolved(self, schema_ids: Iterable[int]) -> None:
        """Record ids that the group has resolved before."""

    def resolved(self) -> tuple[int, ...]:
        """Return the most recently resolved ids."""


class _Head(NamedTuple):
    offset: int
    schema_id: int


class PendingSchemas:
    """Partitions paused until the schema of their next record is fetched. Owned by the loop's thread.

    Args:
        reader: pauses and resumes partitions.
        ledger: the loop's offset ledger.
        lookup: fetches schemas.
        tell: called with the reason of the pause whenever it changes; None: no partition is paused, or only briefly.
    """

    def __init__(
        self, reader: Reader, ledger: OffsetLedger[Any], lookup: SchemaLookup, tell: Callable[[str | None], object]
    ) -> None:
        self._reader = reader
        self._ledger = ledger
        self._lookup = lookup
        self._tell = tell
        self._told: str | None = None
        self._heads: dict[Partition, _Head] = {}

    def __len__(self) -> int:
        return len(self._heads)

    def admits(self, record: SourceRecord) -> bool:
        """Return whether a record can be decoded now; otherwise it is delivered again with its schema."""
        if self.is_paused(record):
            return False
        schema_id = schema_id_of(record.value)
        if schema_id is None or self._lookup.is_answered(schema_id):
            return True
        partition = Partition(record.topic, record.partition)
        position = self._ledger.next_to_read(partition)
        if position is not None and record.offset >= position:  # else not assigned any more, or a repetition
            self._heads[partition] = _Head(position, schema_id)
            self._reader.pause_partition(partition)
        return False

    def is_paused(self, record: SourceRecord) -> bool:
        """Return whether a record follows one that is pending: both are delivered again.

        Its own schema is fetched meanwhile, so that several unknown ids cost one wait in total.
        """
        if not self._heads or (record.topic, record.partition) not in self._heads:
            return False
        schema_id = schema_id_of(record.value)
        if schema_id is not None:
            self._lookup.request(schema_id, ahead=True)
        return True

    def resume_resolved(self) -> None:
        """Resume the partitions whose schemas are fetched, and report why the others are paused."""
        if not self._heads and self._told is None:
            return
        for partition, head in list(self._heads.items()):
            if self._lookup.is_answered(head.schema_id) and self._reader.resume_from(partition, head.offset):
                del self._heads[partition]
        reason = next(filter(None, (self._lookup.error_for(head.schema_id) for head in self._heads.values())), None)
        if reason != self._told and (reason is not None or not self._heads):
            self._told = reason
            self._tell(reason)

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """Drop the state of revoked partitions."""
        for partition in partitions:
            self._heads.pop(partition, None)
