"""What may be read and not yet committed, and each partition's share of it.

Rows count until they are committed, those too that are finished and stand behind a request under way: memory holds
them. So a partition whose head hangs fills up, whatever is put off behind it. A partition may have as much of the
window as is free: a blocked one takes half, the next one half of what is left, and the others can always be read. All
retry tiers together have half at most. A partition that has its share is held back until half of that is committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_scorer.core.events import Partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stream_scorer.core.events import SourceRecord
    from stream_scorer.core.ledger import RecordLedger
    from stream_scorer.kafka.retry_heads import Reader

_MAX_BYTES: Final = 128 * 1024 * 1024
_TIERS_SHARE: Final = 0.5


class Window:
    """See the module's text. Shares are of the whole window, by records or by bytes, whichever is more.

    Args:
        reader: delivers partitions, or does not.
        ledger: the books.
        is_tier: whether a topic is a retry tier.
        max_records: how many records the window holds.
    """

    def __init__(
        self, reader: Reader, ledger: RecordLedger[Any], is_tier: Callable[[str], bool], max_records: int
    ) -> None:
        self._reader = reader
        self._ledger = ledger
        self._is_tier = is_tier
        self._max_records = max_records
        self._held: dict[Partition, int] = {}

    @property
    def room(self) -> int:
        """How many records may be read now."""
        return self._max_records - self._ledger.uncommitted if self.taken < 1 else 0

    @property
    def taken(self) -> float:
        """The share that is taken; 1: full."""
        return self._share(self._ledger.uncommitted, self._ledger.uncommitted_bytes)

    @property
    def is_crowded(self) -> bool:
        """Whether something is not read because there is no room for it."""
        return bool(self._held) or self.taken >= 1

    def admits(self, record: SourceRecord) -> bool:
        """Whether a record may be taken in; if not, it comes again when there is room for it."""
        partition = Partition(record.topic, record.partition)
        if partition in self._held:
            return False
        if not self._ledger.owns_partition(partition) or self._share(*self._ledger.size(partition)) < self._free(
            partition
        ):
            return True
        self._held[partition] = record.offset
        self._reader.hold_back(partition)
        return False

    def release(self) -> None:
        """Lets the partitions go that have room again."""
        for partition, offset in list(self._held.items()):
            free = self._free(partition)
            has_room = free > 0 and self._share(*self._ledger.size(partition)) <= free / 2
            if has_room and self._reader.let_go(partition, offset):
                del self._held[partition]

    def forget(self, partitions: Iterable[Partition]) -> None:
        """These are not ours any more."""
        for partition in partitions:
            self._held.pop(partition, None)

    # --- private

    def _share(self, records: int, size: int) -> float:
        return max(records / self._max_records, size / _MAX_BYTES)

    def _free(self, partition: Partition) -> float:
        """What is free for a partition."""
        free = 1 - self.taken
        if not self._is_tier(partition.topic):
            return free
        sizes = [self._ledger.size(owned) for owned in self._ledger.partitions if self._is_tier(owned.topic)]
        tiers = self._share(sum(records for records, _ in sizes), sum(size for _, size in sizes))
        return min(free, _TIERS_SHARE - tiers)
