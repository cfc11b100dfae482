"""Consumer lag, stall detection and group membership.

A partition *stalls* while its first uncommitted record stays the first. A backlog that shrinks does not stall, however
old its records are. A record without an outcome stalls its partition, however young it is. A stall is *explained*
while its reason is known: only the time after that counts against the loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.core.records import Partition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_scorer.core.records import SourceRecord

# Between two observations that are further apart the loop or the process was blocked: no record is the cause.
_MAX_OBSERVATION_GAP_S: Final = 10.0


class CommitPosition(NamedTuple):
    """Commit position of an assigned partition.

    Attributes:
        partition: the partition.
        offset: every record below it is committed.
        timestamp_ms: Kafka's timestamp of the record at ``offset``, Unix milliseconds; -1: it has none; None: the
            record is not read yet.
    """

    partition: Partition
    offset: int
    timestamp_ms: int | None


class ConsumerLag(NamedTuple):
    """Lag of the assigned partitions.

    Attributes:
        oldest_age_s: age of the oldest record that is read and not committed; 0: there is none.
        stalled_s: the longest stall of a partition; 0: none.
        unexplained_s: the part of ``stalled_s`` since a reason was last known.
        lags: number of uncommitted records in the log, for each assigned partition whose end offset is known.
    """

    oldest_age_s: float
    stalled_s: float
    unexplained_s: float
    lags: Mapping[tuple[str, int], int]


NOTHING_READ: Final = ConsumerLag(0.0, 0.0, 0.0, {})


class StallDetector:
    """Detector of partitions whose commit position does not advance.

    Pure: monotonic seconds and Unix milliseconds are passed in.
    """

    def __init__(self) -> None:
        self._since: dict[Partition, tuple[int, float]] = {}
        self._observed_at = self._explained_at = float("-inf")

    def observe(
        self,
        positions: Iterable[CommitPosition],
        ends: Mapping[Partition, int],
        now: float,
        now_ms: int,
        *,
        explained: bool = False,
    ) -> ConsumerLag:
        """Record the commit positions and return the lag.

        Args:
            positions: commit positions of all assigned partitions.
            ends: the offset behind each partition's last record, where it is known.
            now: monotonic seconds.
            now_ms: Unix milliseconds.
            explained: whether the reason of a stall is known.
        """
        if explained or now - self._observed_at > _MAX_OBSERVATION_GAP_S:
            self._explained_at = now
        self._observed_at = now
        since: dict[Partition, tuple[int, float]] = {}
        lags: dict[tuple[str, int], int] = {}
        oldest_age_s = 0.0
        for partition, offset, timestamp_ms in positions:
            if partition in ends:
                lags[partition] = max(0, ends[partition] - offset)
            if timestamp_ms is None:
                continue
            if timestamp_ms >= 0:
                oldest_age_s = max(oldest_age_s, (now_ms - timestamp_ms) / 1000)
            before = self._since.get(partition)
            since[partition] = before if before is not None and before[0] == offset else (offset, now)
        self._since = since
        stalled_s = max((now - began for _, began in since.values()), default=0.0)
        return ConsumerLag(oldest_age_s, stalled_s, min(stalled_s, now - self._explained_at), lags)


class GroupMembership:
    """The assigned partitions and the state of the rebalance. One thread writes, any thread reads.

    Args:
        standby_after_s: how long a member without partitions may still get some. In the cooperative protocol the first
            assignment of a new member is often empty, because the other members revoke its partitions only then.
    """

    def __init__(self, standby_after_s: float = 0.0) -> None:
        self._standby_after_s = standby_after_s
        self._owned: set[Partition] = set()
        self._has_joined = self._is_stable = False
        self._standby_at: float | None = None
        self._disconnected: str | None = None

    @property
    def owned(self) -> int:
        """Number of assigned partitions."""
        return len(self._owned)

    def assigned(self, partition: Partition) -> None:
        """Record an assigned partition."""
        self._owned.add(partition)
        self._has_joined = True
        self._standby_at = None
        self._disconnected = None

    def revoked(self, partitions: Iterable[Partition]) -> None:
        """Record revoked partitions; the rebalance is in progress."""
        self._owned.difference_update(partitions)
        self._is_stable = False
        self._standby_at = None

    def rebalanced(self, now: float) -> None:
        """Record the end of a rebalance, possibly without partitions; ``now``: monotonic seconds."""
        if not self._is_stable and not self._owned:
            self._standby_at = now + self._standby_after_s
        self._has_joined = self._is_stable = True
        self._disconnected = None

    def becomes_standby(self, now: float) -> bool:
        """Return whether this member has no partition in a stable group. True once for each such period."""
        if self._standby_at is None or now < self._standby_at:
            return False
        self._standby_at = None
        return True

    def disconnected(self, reason: str) -> None:
        """Record that the brokers cannot be reached or refuse access; the next group event ends that state."""
        self._disconnected = reason

    def unready_reason(self) -> str | None:
        """Return why the member is not ready; None if it has partitions, or is a standby in a stable group."""
        if self._owned or self._is_stable:
            return None  # a broker failure is reported by the commits
        if self._disconnected is not None:
            return f"kafka: {self._disconnected}"
        if not self._has_joined:
            return "starting: no partition assigned yet"
        return "rebalancing: no partition assigned any more, waiting for the group"


def liveness_failure(still_s: float, unexplained_s: float, still_limit_s: float, wait_limit_s: float) -> str | None:
    """Return why a worker should be restarted; None if it should not.

    The loop stands still, or the oldest event waits without a known reason.
    """
    if still_s > still_limit_s:
        return f"the loop has stood still for {still_s:.0f} s"
    if unexplained_s > wait_limit_s:
        return f"the oldest event has waited for {unexplained_s:.0f} s, and no reason is known"
    return None


def is_below(offsets: Mapping[Partition, int], record: SourceRecord) -> bool:
    """Return whether these committed offsets cover a record."""
    return record.offset < offsets.get(Partition(record.topic, record.partition), 0)
