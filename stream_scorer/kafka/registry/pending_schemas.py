"""Records whose writer's schema is still to be fetched: their partitions are held back, all others are read on.

Such a record is not in the ledger. So nothing is committed past it, a revocation or the end of the worker has nothing
to give back, and whoever reads the partition next meets it again.
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
    """What is needed of the consumer; see ``kafka.consumer.group_consumer.Source``."""

    def pause_partition(self, partition: Partition) -> None:
        """Delivers nothing of a partition until ``resume_from``."""

    def resume_from(self, partition: Partition, offset: int) -> bool:
        """Delivers a partition again, from ``offset`` on; False: not possible now."""


class SchemaLookup(Protocol):
    """Who fetches schemas; see ``kafka.registry.schema_fetcher.WriterLookup``."""

    def request(self, schema_id: int, *, ahead: bool = False) -> None:
        """Fetches the schema behind an id; ``ahead``: nobody waits for it yet."""

    def is_answered(self, schema_id: int) -> bool:
        """Whether it is known by now."""

    def error_for(self, schema_id: int) -> str:
        """Why it is not; empty: it has not failed yet."""

    def mark_resolved(self, schema_ids: Iterable[int]) -> None:
        """Takes ids that the group has resolved before."""

    def resolved(self) -> tuple[int, ...]:
        """The ids that were resolved last."""


class _Head(NamedTuple):
    offset: int
    schema_id: int


class PendingSchemas:
    """See the module's text. Owned by the loop's thread.

    Args:
        reader: delivers partitions, or does not.
        ledger: the books of the loop.
        lookup: fetches schemas.
        tell: is told why records wait, whenever that changes; None: none waits, or only for a moment.
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
        """Whether a record can be decoded now; if not, it comes again when its schema is there."""
        if self.is_paused(record):
            return False
        schema_id = schema_id_of(record.value)
        if schema_id is None or self._lookup.is_answered(schema_id):
            return True
        partition = Partition(record.topic, record.partition)
        position = self._ledger.next_to_read(partition)
        if position is not None and record.offset >= position:  # else it is not ours any more, or a repetition
            self._heads[partition] = _Head(position, schema_id)
            self._reader.pause_partition(partition)
        return False

    def is_paused(self, record: SourceRecord) -> bool:
        """Whether a record stands behind one that waits: it was read along with it, and comes again.

        Its own schema is fetched meanwhile, so that a few unknown ids cost one wait and not one each.
        """
        if not self._heads or (record.topic, record.partition) not in self._heads:
            return False
        schema_id = schema_id_of(record.value)
        if schema_id is not None:
            self._lookup.request(schema_id, ahead=True)
        return True

    def resume_resolved(self) -> None:
        """Lets the partitions go whose schemas are there, and says why the others wait."""
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
        """These are not ours any more."""
        for partition in partitions:
            self._heads.pop(partition, None)
