"""Counts of the records of a desk: by reason, campaign or hour, with the states that an operator works on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from stream_scorer.core.desk.record_rows import iso_time

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from stream_scorer.core.records import SourceRecord

UNKNOWN: Final = "(unknown)"
NO_CAMPAIGN: Final = "(none)"


class GroupBy(StrEnum):
    """Grouping of a list."""

    REASON = "reason"
    CAMPAIGN = "campaign"
    HOUR = "hour"


class _Group:
    __slots__ = ("example", "first_ms", "last_ms", "records", "states")

    def __init__(self, states: Collection[str]) -> None:
        self.records = 0
        self.states = dict.fromkeys(states, 0)
        self.first_ms = self.last_ms = -1
        self.example = ""


class RecordCounts:
    """Counts of one list.

    Args:
        by: the grouping.
        states: the states of a record, in the order of the columns.
    """

    def __init__(self, by: GroupBy, states: Collection[str]) -> None:
        self._by = by
        self._states = [str(state) for state in states]
        self._groups: dict[str, _Group] = {}

    def add(self, record: SourceRecord, *, reason: str, campaign: str, state: str | None = None) -> None:
        """Count a record with the values that it may be grouped by; ``state``: None where records have none."""
        at_ms = record.timestamp_ms
        names = {GroupBy.REASON: reason, GroupBy.CAMPAIGN: campaign, GroupBy.HOUR: _hour(at_ms)}
        group = self._groups.setdefault(names[self._by] or UNKNOWN, _Group(self._states))
        group.records += 1
        if state is not None:
            group.states[state] += 1
        group.first_ms = at_ms if group.first_ms < 0 else min(group.first_ms, at_ms)
        group.last_ms = max(group.last_ms, at_ms)
        group.example = group.example or record.source

    @property
    def total(self) -> int:
        """Number of records."""
        return sum(group.records for group in self._groups.values())

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each group, the largest first, those of hours in order."""
        named = sorted(self._groups.items(), key=lambda one: one[0] if self._by is GroupBy.HOUR else -one[1].records)
        for name, group in named:
            yield {
                str(self._by): name,
                "records": group.records,
                "share": round(group.records / self.total, 4),
                **group.states,
                "first": iso_time(group.first_ms),
                "last": iso_time(group.last_ms),
                "example": group.example,
            }


def campaign_name(campaign_id: str | None) -> str:
    """Return the name of a campaign in a list."""
    return campaign_id or NO_CAMPAIGN


def time_of_ms(at_ms: int) -> datetime | None:
    """Return Unix milliseconds as a time; None: it is outside the years 1 to 9999."""
    try:
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=at_ms)
    except OverflowError:
        return None


def _hour(at_ms: int) -> str:
    return "" if at_ms < 0 else str(iso_time(at_ms // 3_600_000 * 3_600_000))
