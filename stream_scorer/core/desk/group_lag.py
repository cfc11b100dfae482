"""Lag of a consumer group on its input topic, and the time until it is gone: from two readings of commits and ends.

The rate is that of the commits. The time left follows from the fall of the lag, so it includes what producers add.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86_400


class PartitionOffsets(NamedTuple):
    """Offsets of a partition; ``committed``: None: the group has no commit on it, and would read it from ``begin``."""

    begin: int
    committed: int | None
    end: int

    @property
    def next_offset(self) -> int:
        """The offset that the group reads next."""
        return self.begin if self.committed is None else max(self.begin, self.committed)

    @property
    def lag(self) -> int:
        """Number of offsets that the group has not committed."""
        return max(0, self.end - self.next_offset)


class GroupMember(NamedTuple):
    """Member of a group; ``partitions``: those of the group's input topic that are assigned to it."""

    name: str
    partitions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GroupOffsets:
    """Offsets of a group on its input topic.

    Attributes:
        loop: ``scoring``, ``planner`` or ``deliverer``.
        group_id: the group.
        topic: its input topic.
        partitions: offsets by partition.
        members: its members; None: not known.
        waiting: records that wait in each retry topic; None: not counted.
        notes: what limits these numbers, one line each.
    """

    loop: str
    group_id: str
    topic: str
    partitions: Mapping[int, PartitionOffsets]
    members: tuple[GroupMember, ...] | None = None
    waiting: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()

    @property
    def lag(self) -> int:
        """Sum over all partitions."""
        return sum(one.lag for one in self.partitions.values())

    @property
    def is_stopped(self) -> bool:
        """Whether records wait for the group, and it has no member."""
        return self.members == () and self.lag + sum((self.waiting or {}).values()) > 0

    def owners(self, partition: int) -> tuple[str, ...]:
        """Return the names of the members to which a partition is assigned: one, or none."""
        return tuple(one.name for one in self.members or () if partition in one.partitions)


class Pace(NamedTuple):
    """Pace of a group or a partition.

    Attributes:
        lag: offsets that are not committed.
        rate_per_s: commits a second between the readings; None: there was one reading only.
        time_left_s: seconds until the lag is gone; None: unknown, or the lag does not fall.
    """

    lag: int
    rate_per_s: float | None = None
    time_left_s: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """Offsets of all groups at one moment; ``at`` is in monotonic seconds."""

    at: float
    groups: tuple[GroupOffsets, ...] = field(default=())

    @property
    def lag(self) -> int:
        """Sum over all groups."""
        return sum(group.lag for group in self.groups)

    def group(self, loop: str) -> GroupOffsets | None:
        """Return the offsets of a loop; None: it has no commits."""
        return next((one for one in self.groups if one.loop == loop), None)


def group_pace(before: Reading | None, after: Reading, loop: str) -> Pace:
    """Return the pace of a group; ``before``: an earlier reading; None: there is none."""
    now = after.group(loop)
    then = None if before is None else before.group(loop)
    if now is None:
        return Pace(0)
    if before is None or then is None or then.partitions.keys() != now.partitions.keys():
        return Pace(now.lag, time_left_s=0.0 if now.lag == 0 else None)
    advanced = sum(_advanced(then.partitions[number], one) for number, one in now.partitions.items())
    return _pace(now.lag, then.lag, advanced, after.at - before.at)


def partition_paces(before: Reading | None, after: Reading, loop: str) -> dict[int, Pace]:
    """Return the pace of each partition of a group."""
    now = after.group(loop)
    then = None if before is None else before.group(loop)
    if now is None:
        return {}
    paces = {}
    for number, one in now.partitions.items():
        earlier = None if then is None else then.partitions.get(number)
        if before is None or earlier is None:
            paces[number] = Pace(one.lag, time_left_s=0.0 if one.lag == 0 else None)
        else:
            paces[number] = _pace(one.lag, earlier.lag, _advanced(earlier, one), after.at - before.at)
    return paces


def _advanced(before: PartitionOffsets, after: PartitionOffsets) -> int:
    return max(0, after.next_offset - before.next_offset)


def _pace(lag: int, lag_before: int, advanced: int, seconds: float) -> Pace:
    if seconds <= 0:
        return Pace(lag, time_left_s=0.0 if lag == 0 else None)
    falls_per_s = (lag_before - lag) / seconds
    left_s = 0.0 if lag == 0 else lag / falls_per_s if falls_per_s > 0 else None
    return Pace(lag, round(advanced / seconds, 1), None if left_s is None else round(left_s, 1))


def duration_text(seconds: float) -> str:
    """Return a duration, such as ``3 s``, ``4 min``, ``2 h 5 min`` or ``3 d 2 h``."""
    whole = max(0, round(seconds))
    if whole < 2 * _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{round(whole / _MINUTE_S)} min"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
    return f"{whole // _DAY_S:,} d {whole % _DAY_S // _HOUR_S} h"
