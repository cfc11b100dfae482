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

# Between two looks that are further apart the loop itself stood still, or the process did: no record is to blame.
_MAX_OBSERVATION_GAP_S: Final = 10.0


class CommitPosition(NamedTuple):
    """Where the commits of an owned partition stand.

    Attributes:
        partition: which one.
        offset: everything below it is committed.
        timestamp_ms: Kafka's time of the record there, Unix milliseconds, -1 where it has none; None: it is not read
            yet.
    """

    partition: Partition
    offset: int
    timestamp_ms: int | None


class ConsumerLag(NamedTuple):
    """How far the input is.

    Attributes:
        oldest_age_s: age of the oldest record that is read and not committed; 0: there is none.
        stalled_s: how long the partition that stalls longest does; 0: none.
        unexplained_s: the same, from when a reason was last known.
        lags: for each owned partition whose end is known, the records in the log that are not committed.
    """

    oldest_age_s: float
    stalled_s: float
    unexplained_s: float
    lags: Mapping[tuple[str, int], int]


NOTHING_READ: Final = ConsumerLag(0.0, 0.0, 0.0, {})


class StallDetector:
    """Looks at the fronts again and again. Times are passed in: monotonic seconds, and Unix milliseconds."""

    def __init__(self) -> None:
        self._since: dict[Partition, tuple[int, float]] = {}
        self._observed_at = self._explained_at = float("-inf")

    def observe(
        self,
        fronts: Iterable[CommitPosition],
        ends: Mapping[Partition, int],
        now: float,
        now_ms: int,
        *,
        explained: bool = False,
    ) -> ConsumerLag:
        """Say how things stand.

        Args:
            fronts: of all partitions that are owned.
            ends: the offset behind each partition's last record, where it is known.
            now: monotonic seconds.
            now_ms: Unix milliseconds.
            explained: whether it is known why what stalls does.
        """
        if explained or now - self._observed_at > _MAX_OBSERVATION_GAP_S:
            self._explained_at = now
        self._observed_at = now
        since: dict[Partition, tuple[int, float]] = {}
        lags: dict[tuple[str, int], int] = {}
        oldest_age_s = 0.0
        for partition, offset, timestamp_ms in fronts:
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
    """Which partitions are owned, and whether the group has settled. Not thread-safe but for reading.

    Args:
        standby_after_s: how long a member without partitions may still get some. Under the cooperative protocol the
            first assignment of a new member is often empty, because the others give up its partitions only then.
    """

    def __init__(self, standby_after_s: float = 0.0) -> None:
        self._standby_after_s = standby_after_s
        self._owned: set[Partition] = set()
        self._has_joined = self._is_settled = False
        self._standby_at: float | None = None
        self._disconnected: str | None = None

    @property
    def owned(self) -> int:
        """How many partitions are owned."""
        return len(self._owned)

    def assigned(self, partition: Partition) -> None:
        """A partition is ours from now on."""
        self._owned.add(partition)
        self._has_joined = True
        self._standby_at = None
        self._disconnected = None

    def revoked(self, partitions: Iterable[Partition]) -> None:
        """Partitions are not ours any more; the group is about to say what is."""
        self._owned.difference_update(partitions)
        self._is_settled = False
        self._standby_at = None

    def rebalanced(self, now: float) -> None:
        """The group has said what is ours, which may be nothing; ``now``: monotonic seconds."""
        if not self._is_settled and not self._owned:
            self._standby_at = now + self._standby_after_s
        self._has_joined = self._is_settled = True
        self._disconnected = None

    def becomes_standby(self, now: float) -> bool:
        """Whether this member turns out to have no partition in a stable group. True once for each such time."""
        if self._standby_at is None or now < self._standby_at:
            return False
        self._standby_at = None
        return True

    def disconnected(self, reason: str) -> None:
        """Record that the brokers cannot be reached or refuse access; the next group event ends that state."""
        self._disconnected = reason

    def unready_reason(self) -> str | None:
        """Why there is nothing to do yet; a spare, whose group has more members than partitions, has that done."""
        if self._owned or self._is_settled:
            return None  # what is wrong with the brokers shows in the commits, where there is anything to commit
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
    """Tell whether these committed offsets cover a record."""
    return record.offset < offsets.get(Partition(record.topic, record.partition), 0)
