"""Flow control of a consumer: how much may be read and not yet committed, and the fair share of each partition.

Records count until they are committed, finished or not, because memory holds them. They count twice: by number, and by
bytes of key, value and headers. Each partition is an account of ``core.flow_control``; all retry partitions together
are one more while they hold records. A partition that has its share is paused, and is read again from the same record
once half of the share is committed. A partition that holds nothing may take one record of any size, so that no record
is too large to be read and no partition waits for the others. So the limit is exceeded by one record a partition at
most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from stream_scorer.core.flow_control import FairShares
from stream_scorer.core.records import Partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from stream_scorer.core.exactly_once.offset_ledger import OffsetLedger
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.kafka.consumer.retry_heads import Reader

# Records, and the bytes of their keys, values and headers.
_Size: TypeAlias = tuple[int, int]
_Ceilings: TypeAlias = tuple[float, float]
_NOTHING: Final[_Ceilings] = (0.0, 0.0)


class FlowControl:
    """See the module's text. Owned by the loop's thread.

    Args:
        reader: pauses and resumes partitions.
        ledger: counts what is read and not yet committed.
        max_records: how many records all partitions may hold together.
        max_bytes: how many bytes their keys, values and headers may have together.
        is_retry: whether a topic is a retry topic.
    """

    def __init__(
        self,
        reader: Reader,
        ledger: OffsetLedger[Any],
        *,
        max_records: int,
        max_bytes: int,
        is_retry: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._reader = reader
        self._ledger = ledger
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._is_retry = is_retry
        self._paused: dict[Partition, int] = {}
        # The ceilings of the partition whose records are being admitted. Until the next `resume`, only it can grow.
        self._partition: Partition | None = None
        self._ceilings = _NOTHING

    @property
    def used(self) -> float:
        """The part of the limit that is used, by number or by bytes, whichever is more; 1: all of it."""
        return max(self._ledger.uncommitted / self._max_records, self._ledger.uncommitted_bytes / self._max_bytes)

    @property
    def is_blocking(self) -> bool:
        """Whether something is not read because there is no room for it."""
        return bool(self._paused) or self.used >= 1

    def room(self) -> int:
        """Return how many records may be read now; 0: every partition that can be read has its share."""
        partitions = self._ledger.partitions
        if not partitions:
            return self._max_records  # before the first assignment, the consumer is read to join its group
        accounts = self._accounts()
        if all(one in self._paused or accounts.is_full(one) for one in partitions):
            return 0
        return max(1, self._max_records - self._ledger.uncommitted)

    def try_admit(self, record: SourceRecord) -> bool:
        """Whether a record may be taken in. If not, its partition is paused, and delivers it again later."""
        partition = self._partition
        if partition is None or record.partition != partition[1] or record.topic != partition[0]:
            partition = self._turn_to(Partition(record.topic, record.partition))
        records, size = self._ledger.size(partition)
        most_records, most_bytes = self._ceilings
        if records < most_records and size < most_bytes:
            return True
        if partition in self._paused:
            return False
        if not records:
            return True
        self._paused[partition] = record.offset
        self._reader.pause_partition(partition)
        self._ceilings = _NOTHING
        return False

    def is_paused(self, record: SourceRecord) -> bool:
        """Whether a record stands behind one that was not admitted: it was read with it, and is read again."""
        return bool(self._paused) and (record.topic, record.partition) in self._paused

    def resume_with_room(self) -> None:
        """Read the partitions again that have room. Call it before each read."""
        self._partition = None  # what the ceilings were computed from has changed
        if not self._paused:
            return
        accounts = self._accounts()
        for partition, offset in list(self._paused.items()):
            if accounts.has_room(partition) and self._reader.resume_from(partition, offset):
                del self._paused[partition]

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """Drop what is known of partitions that were taken away."""
        self._partition = None
        for partition in partitions:
            self._paused.pop(partition, None)

    # --- private

    def _turn_to(self, partition: Partition) -> Partition:
        self._partition = partition
        self._ceilings = _NOTHING if partition in self._paused else self._accounts().ceilings(partition)
        return partition

    def _accounts(self) -> _Accounts:
        sizes = {partition: self._ledger.size(partition) for partition in self._ledger.partitions}
        return _Accounts(sizes, self._is_retry, (self._max_records, self._max_bytes))


class _Accounts:
    """What the partitions hold at this moment, and how much each may hold, by records and by bytes.

    Args:
        sizes: records and bytes that each assigned partition holds.
        is_retry: whether a topic is a retry topic.
        limits: how many records and bytes all may hold together.
    """

    def __init__(self, sizes: Mapping[Partition, _Size], is_retry: Callable[[str], bool], limits: _Size) -> None:
        self._sizes = sizes
        self._is_retry = is_retry
        features = [size for partition, size in sizes.items() if not is_retry(partition.topic)]
        retries = [size for partition, size in sizes.items() if is_retry(partition.topic)]
        self._retries = (sum(records for records, _ in retries), sum(size for _, size in retries))
        self._shares = _divided(limits, [*features, self._retries] if self._retries[0] else features)
        # Retry partitions count as holding records here: the one that is checked is about to hold some.
        self._retry_shares = _divided(limits, [*features, self._retries]) if retries else self._shares

    def ceilings(self, partition: Partition) -> _Ceilings:
        """Return up to where a partition may grow now."""
        own, used, shares = self._account(partition)
        records, size = (
            share.ceiling_of(total) - (total - mine) for share, total, mine in zip(shares, used, own, strict=True)
        )
        return records, size

    def is_full(self, partition: Partition) -> bool:
        """Whether a partition may take nothing more."""
        own = self._sizes[partition]
        return bool(own[0]) and any(mine >= most for mine, most in zip(own, self.ceilings(partition), strict=True))

    def has_room(self, partition: Partition) -> bool:
        """Whether a partition that was paused may be read again: it is empty, or half of its share is free."""
        own, used, shares = self._account(partition)
        if not own[0]:
            return True
        return not any(
            share.is_full or total > share.share_of(total) / 2 for share, total in zip(shares, used, strict=True)
        )

    def _account(self, partition: Partition) -> tuple[_Size, _Size, tuple[FairShares, FairShares]]:
        """Return what the partition holds, what its account does, and how the limits are divided."""
        own = self._sizes.get(partition, (0, 0))
        if self._is_retry(partition.topic):
            return own, self._retries, self._retry_shares
        return own, own, self._shares


def _divided(limits: _Size, used: Sequence[_Size]) -> tuple[FairShares, FairShares]:
    max_records, max_bytes = limits
    return (
        FairShares.of(max_records, [records for records, _ in used]),
        FairShares.of(max_bytes, [size for _, size in used]),
    )
