"""Records whose writer's schema is not fetched yet: their partitions are paused, all others continue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from stream_scorer.core.avro.confluent import schema_id_of
from stream_scorer.core.records import Partition
from stream_scorer.kafka.consumer.paused_partitions import PausedPartitions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stream_scorer.core.exactly_once.offset_ledger import OffsetLedger
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.kafka.consumer.group_consumer import GroupConsumer


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


class PausedSchemaPartitions(PausedPartitions[int]):
    """Partitions paused until the schema of their next record is fetched; the reason is the schema's id.

    Args:
        reader: pauses and resumes partitions.
        ledger: the loop's offset ledger.
        lookup: fetches schemas; None: no record is ever pending.
        report: called with the reason of the pause whenever it changes; None: no partition is paused, or only briefly.
    """

    def __init__(
        self,
        reader: GroupConsumer,
        ledger: OffsetLedger[Any],
        lookup: SchemaLookup | None,
        report: Callable[[str | None], object],
    ) -> None:
        super().__init__(reader)
        self._ledger = ledger
        self._lookup = lookup
        self._report = report
        self._reported: str | None = None

    def admits(self, record: SourceRecord) -> bool:
        """Return whether a record can be decoded now; otherwise it is delivered again with its schema."""
        if self._lookup is None:
            return True
        if self._paused and self.is_paused(record):
            return False
        schema_id = schema_id_of(record.value)
        if schema_id is None or self._lookup.is_answered(schema_id):
            return True
        partition = Partition(record.topic, record.partition)
        position = self._ledger.next_to_read(partition)
        if position is not None and record.offset >= position:  # else not assigned any more, or a repetition
            self.pause_at(partition, position, schema_id)
        return False

    def is_paused(self, record: SourceRecord) -> bool:
        """Return whether a record follows one that is pending: both are delivered again.

        Its own schema is fetched meanwhile, so that several unknown ids cost one wait in total.
        """
        if self._lookup is None or not super().is_paused(record):
            return False
        schema_id = schema_id_of(record.value)
        if schema_id is not None:
            self._lookup.request(schema_id, ahead=True)
        return True

    def resume_resolved(self) -> None:
        """Resume the partitions whose schemas are fetched, and report why the others are paused."""
        lookup = self._lookup
        if lookup is None or (not self and self._reported is None):
            return
        self.resume_if(lambda _, schema_id: lookup.is_answered(schema_id))
        reason = next(filter(None, map(lookup.error_for, self.reasons)), None)
        if reason != self._reported and (reason is not None or not self):
            self._reported = reason
            self._report(reason)
