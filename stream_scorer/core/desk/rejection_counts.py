"""Counts of rejected contacts: by reason, campaign or hour, with the states that an operator works on."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from stream_scorer.core.desk.rejected_record import RejectionState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_scorer.core.desk.rejected_record import RejectedRecord
    from stream_scorer.core.scoring.types import ContactEvent

_UNKNOWN: Final = "(unknown)"


class GroupBy(StrEnum):
    """Grouping of a list."""

    REASON = "reason"
    CAMPAIGN = "campaign"
    HOUR = "hour"


class _Group:
    __slots__ = ("contacts", "example", "first_ms", "last_ms", "states")

    def __init__(self) -> None:
        self.contacts = 0
        self.states = dict.fromkeys(RejectionState, 0)
        self.first_ms = self.last_ms = -1
        self.example = ""


class RejectionCounts:
    """Counts of one list.

    Args:
        by: the grouping.
        max_replays: a contact that was replayed so often is parked.
    """

    def __init__(self, by: GroupBy, max_replays: int) -> None:
        self._by = by
        self._max_replays = max_replays
        self._groups: dict[str, _Group] = {}

    def add(self, rejected: RejectedRecord, event: ContactEvent | None, action: str | None) -> None:
        """Count a record; ``action``: what was decided about it, None: nothing."""
        group = self._groups.setdefault(self._name(rejected, event), _Group())
        at_ms = rejected.record.timestamp_ms
        group.contacts += 1
        group.states[rejected.state(action, self._max_replays)] += 1
        group.first_ms = at_ms if group.first_ms < 0 else min(group.first_ms, at_ms)
        group.last_ms = max(group.last_ms, at_ms)
        group.example = group.example or rejected.place

    @property
    def open(self) -> int:
        """Records without a decision, parked ones included."""
        undecided = (RejectionState.OPEN, RejectionState.PARKED)
        return sum(group.states[state] for group in self._groups.values() for state in undecided)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each group, the largest first, those of hours in order."""
        total = sum(group.contacts for group in self._groups.values())
        named = sorted(self._groups.items(), key=lambda one: one[0] if self._by is GroupBy.HOUR else -one[1].contacts)
        for name, group in named:
            yield {
                str(self._by): name,
                "contacts": group.contacts,
                "share": round(group.contacts / total, 4),
                **{str(state): count for state, count in group.states.items()},
                "first": iso_time(group.first_ms),
                "last": iso_time(group.last_ms),
                "example": group.example,
            }

    def _name(self, rejected: RejectedRecord, event: ContactEvent | None) -> str:
        if self._by is GroupBy.REASON:
            return rejected.reason or _UNKNOWN
        if self._by is GroupBy.CAMPAIGN:
            return _UNKNOWN if event is None else event.campaign_id or "(none)"
        return iso_time(rejected.record.timestamp_ms // 3_600_000 * 3_600_000)


def iso_time(at_ms: int) -> str:
    """Return a Kafka timestamp as ISO 8601 in UTC; empty: there is none."""
    if at_ms < 0:
        return ""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
