"""Paused partitions of a consumer, each with its reason and the offset of the record that is delivered first again.

Three reasons pause a partition. The schema of a record is not known yet (`kafka.registry.paused_schema_partitions`). A
record of a retry topic is not due (`kafka.consumer.paused_retry_partitions`). The partition has its share of what is
uncommitted (`kafka.consumer.flow_control`). A partition is paused for one of them at a time. The record that pauses it
is not in the ledger, so nothing is committed past it, and the next owner of the partition reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from stream_scorer.core.records import Partition, SourceRecord
    from stream_scorer.kafka.consumer.group_consumer import GroupConsumer

ReasonT = TypeVar("ReasonT")


class _Pause(NamedTuple, Generic[ReasonT]):
    resume_offset: int
    reason: ReasonT


class PausedPartitions(Generic[ReasonT]):
    """See the module's text. Owned by the loop's thread.

    Args:
        reader: pauses and resumes partitions.
    """

    def __init__(self, reader: GroupConsumer) -> None:
        self._reader = reader
        self._paused: dict[Partition, _Pause[ReasonT]] = {}

    def __len__(self) -> int:
        return len(self._paused)

    @property
    def reasons(self) -> Iterator[ReasonT]:
        """The reasons of the paused partitions."""
        return (pause.reason for pause in self._paused.values())

    def is_paused(self, record: SourceRecord) -> bool:
        """Return whether a record was read with the one that paused its partition: it is delivered again."""
        return bool(self._paused) and (record.topic, record.partition) in self._paused

    def pause_at(self, partition: Partition, resume_offset: int, reason: ReasonT) -> None:
        """Pause a partition; the record at ``resume_offset`` is the first one after that."""
        self._paused[partition] = _Pause(resume_offset, reason)
        self._reader.pause_partition(partition)

    def resume_if(self, may_resume: Callable[[Partition, ReasonT], bool]) -> None:
        """Resume the partitions for which ``may_resume`` holds. One that the client cannot resume now stays paused."""
        for partition, (resume_offset, reason) in list(self._paused.items()):
            if may_resume(partition, reason) and self._reader.resume_from(partition, resume_offset):
                del self._paused[partition]

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """Drop partitions that were revoked."""
        for partition in partitions:
            self._paused.pop(partition, None)
