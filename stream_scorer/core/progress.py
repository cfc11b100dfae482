"""How far the input is: what waits, how old it is, and for how long nothing has moved.

A partition *stalls* while its first uncommitted record stays the first. A backlog that is worked off does not stall, however
old its records are; a record that nothing comes of does, however young it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_scorer.core.events import Partition


class Front(NamedTuple):
    """Where the commits of an owned partition stand.

    Attributes:
        partition: which one.
        offset: everything below it is committed.
        timestamp_ms: Kafka's time of the record there, Unix milliseconds, -1 where it has none; None: it is not read yet.
    """

    partition: Partition
    offset: int
    timestamp_ms: int | None


class InputState(NamedTuple):
    """How far the input is.

    Attributes:
        oldest_age_s: age of the oldest record that is read and not committed; 0: there is none.
        stalled_s: how long the partition that stalls longest does; 0: none.
        lags: for each owned partition whose end is known, the records in the log that are not committed.
    """

    oldest_age_s: float
    stalled_s: float
    lags: Mapping[tuple[str, int], int]


class Progress:
    """Looks at the fronts again and again. Times are passed in: monotonic seconds, and Unix milliseconds."""

    def __init__(self) -> None:
        self._since: dict[Partition, tuple[int, float]] = {}

    def look(self, fronts: Iterable[Front], ends: Mapping[Partition, int], now: float, now_ms: int) -> InputState:
        """Say how things stand; ``ends``: the offset behind each partition's last record, where it is known."""
        since, lags, oldest_age_s = {}, {}, 0.0
        for partition, offset, timestamp_ms in fronts:
            if partition in ends:
                lags[partition.topic, partition.number] = max(0, ends[partition] - offset)
            if timestamp_ms is None:
                continue
            if timestamp_ms >= 0:
                oldest_age_s = max(oldest_age_s, (now_ms - timestamp_ms) / 1000)
            before = self._since.get(partition)
            since[partition] = before if before is not None and before[0] == offset else (offset, now)
        self._since = since
        stalled_s = max((now - began for _, began in since.values()), default=0.0)
        return InputState(oldest_age_s, stalled_s, lags)
