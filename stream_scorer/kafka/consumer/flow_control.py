"""Flow control of a consumer: limits of records read and not yet committed, and the fair share of each partition.

Records count until they are committed, finished or not, because memory holds them. They count twice: by number, and
by bytes of key, value and headers. Each partition is an account of ``core.flow_control``; all retry partitions
together are one more while they hold records. A partition that has used its share is paused. It is resumed at the
same record once half of the share is committed. A partition that holds nothing may take one record of any size. So no
record is too large to be read, and no partition waits for the others. The limit is exceeded by at most one record
a partition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from stream_scorer.core.flow_control import FairShares
from stream_scorer.core.records import Partition
from stream_scorer.kafka.consumer.paused_partitions import PausedPartitions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from stream_scorer.core.exactly_once.offset_ledger import OffsetLedger
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.kafka.consumer.group_consumer import GroupConsumer

# Number of records, and the bytes of their keys, values and headers.
_Size: TypeAlias = tuple[int, int]
_Ceilings: TypeAlias = tuple[float, float]
_NOTHING: Final[_Ceilings] = (0.0, 0.0)


class FlowControl(PausedPartitions[None]):
    """Flow control of one consumer, by number and bytes of its uncommitted records. Owned by the loop's thread.

    Args:
        reader: pauses and resumes partitions.
        ledger: counts uncommitted records and bytes.
        max_records: limit of records, all partitions together.
        max_bytes: limit of the bytes of their keys, values and headers, all partitions together.
        is_retry: whether a topic is a retry topic.
    """

    def __init__(
        self,
        reader: GroupConsumer,
        ledger: OffsetLedger[Any],
        *,
        max_records: int,
        max_bytes: int,
        is_retry: Callable[[str], bool] = lambda _: False,
    ) -> None:
        super().__init__(reader)
        self._ledger = ledger
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._is_retry = is_retry
        # Ceilings of the partition that is being admitted. Until the next `resume_with_room`, only it can grow.
        self._partition: Partition | None = None
        self._ceilings = _NOTHING
        # `ledger.releases` at the last check that left no partition with room paused: until it changes, none has room.
        self._checked_at: int | None = None

    @property
    def max_records(self) -> int:
        """The limit of records."""
        return self._max_records

    @property
    def used(self) -> float:
        """The used part of the limit, by number or by bytes, whichever is larger; 1: all of it."""
        return max(self._ledger.uncommitted / self._max_records, self._ledger.uncommitted_bytes / self._max_bytes)

    @property
    def is_blocking(self) -> bool:
        """Whether records are not read for lack of room."""
        return bool(self._paused) or self.used >= 1

    def room(self) -> int:
        """Return how many records may be read now; 0: every readable partition has used its share."""
        partitions = self._ledger.partitions
        if not partitions:
            return self._max_records  # before the first assignment: polling joins the group
        readable = [one for one in partitions if one not in self._paused]
        if all(self._ledger.size(one)[0] for one in readable):  # otherwise one of them is empty, and not full
            accounts = self._accounts()
            if all(accounts.is_full(one) for one in readable):
                return 0
        return max(1, self._max_records - self._ledger.uncommitted)

    def try_admit(self, record: SourceRecord) -> bool:
        """Return whether a record is admitted; otherwise its partition is paused, and delivers it again later."""
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
        self.pause_at(partition, record.offset, None)
        self._ceilings = _NOTHING
        return False

    def resume_with_room(self) -> None:
        """Resume the partitions that have room. Call it before each read."""
        self._partition = None  # its ceilings are outdated
        releases = self._ledger.releases
        if not self._paused or releases == self._checked_at:
            return
        accounts = self._accounts()
        self.resume_if(lambda partition, _: accounts.has_room(partition))
        self._checked_at = None if any(map(accounts.has_room, self._paused)) else releases

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """Drop the state of revoked partitions."""
        self._partition = None
        super().revoke(partitions)

    # --- private

    def _turn_to(self, partition: Partition) -> Partition:
        self._partition = partition
        self._ceilings = _NOTHING if partition in self._paused else self._accounts().ceilings(partition)
        return partition

    def _accounts(self) -> _Accounts:
        sizes = {partition: self._ledger.size(partition) for partition in self._ledger.partitions}
        return _Accounts(sizes, self._is_retry, (self._max_records, self._max_bytes))


class _Accounts:
    """Current use and ceiling of each partition, by records and by bytes.

    Args:
        sizes: records and bytes held by each assigned partition.
        is_retry: whether a topic is a retry topic.
        limits: records and bytes of all partitions together.
    """

    def __init__(self, sizes: Mapping[Partition, _Size], is_retry: Callable[[str], bool], limits: _Size) -> None:
        self._sizes = sizes
        self._is_retry = is_retry
        features = [size for partition, size in sizes.items() if not is_retry(partition.topic)]
        retries = [size for partition, size in sizes.items() if is_retry(partition.topic)]
        self._retries = (sum(records for records, _ in retries), sum(size for _, size in retries))
        self._shares = _divided(limits, [*features, self._retries] if self._retries[0] else features)
        # Retry partitions count as holding records here: the one being checked is about to hold some.
        self._retry_shares = _divided(limits, [*features, self._retries]) if retries else self._shares

    def ceilings(self, partition: Partition) -> _Ceilings:
        """Return the ceilings of a partition: the records and bytes up to which it may grow now."""
        own, used, shares = self._account(partition)
        records, size = (
            share.ceiling_of(total) - (total - mine) for share, total, mine in zip(shares, used, own, strict=True)
        )
        return records, size

    def is_full(self, partition: Partition) -> bool:
        """Return whether a partition has reached a ceiling."""
        own = self._sizes[partition]
        return bool(own[0]) and any(mine >= most for mine, most in zip(own, self.ceilings(partition), strict=True))

    def has_room(self, partition: Partition) -> bool:
        """Return whether a paused partition may be resumed: it is empty, or half of its share is free."""
        own, used, shares = self._account(partition)
        if not own[0]:
            return True
        return not any(
            share.is_full or total > share.share_of(total) / 2 for share, total in zip(shares, used, strict=True)
        )

    def _account(self, partition: Partition) -> tuple[_Size, _Size, tuple[FairShares, FairShares]]:
        """Return the use of the partition, the use of its account, and the shares of both limits."""
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
