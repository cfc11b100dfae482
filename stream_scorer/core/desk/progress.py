"""Progress of a loop: one log event a minute while it works, one at the end of a backlog, the totals at the end.

Every number of outcomes is a total since the start of the process. The rate is that since the last event.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EVERY_S: Final = 60.0
# A backlog is more than the loop finishes in this time.
_BACKLOG_S: Final = 10.0
# From this rate on, a fraction is noise.
_WHOLE_RATE: Final = 10


class ReportKind(StrEnum):
    """Why progress is reported: the name of the log event."""

    PROGRESS = "progress reported"
    CAUGHT_UP = "caught up"
    TOTALS = "totals reported"


class Report(NamedTuple):
    """Progress that is to be logged; ``lag``: records to be finished, None: unknown."""

    kind: ReportKind
    rate_per_s: float
    outcomes: Mapping[str, int]
    lag: int | None


class Progress:
    """Totals of a loop's outcomes, and the decision when they are reported.

    Pure: monotonic seconds are passed in. ``caught up`` is due once for each backlog: when the lag is 0 for the first
    time after the start, after a minute without outcomes, after a minute at whose end over ten seconds of work were
    left, or after ten seconds with a lag and no outcome, as in an outage. So a quiet stream, whose lag is 0 every
    second, is reported once a minute.

    Args:
        finished: names of the outcomes that count in the rate.
        others: names of the outcomes that do not.
        now: monotonic seconds.
    """

    def __init__(self, finished: Sequence[str], others: Sequence[str], now: float) -> None:
        self._finished = tuple(finished)
        self._totals = dict.fromkeys((*finished, *others), 0)
        self._began_at = self._last_at = self._last_outcome_at = now
        self._reported = 0
        self._has_news = False
        self._has_backlog = True
        self._stalled_since: float | None = None

    def add(self, outcomes: Mapping[str, int], now: float) -> None:
        """Add committed outcomes."""
        if not any(outcomes.values()):
            return
        if now - max(self._last_outcome_at, self._last_at) >= _EVERY_S:
            self._has_backlog = True
            if not self._has_news:
                self._last_at = now  # the next rate is that of the work, without the time before it
        self._has_news, self._last_outcome_at, self._stalled_since = True, now, None
        for name, amount in outcomes.items():
            self._totals[name] += amount

    def observe(self, lag: int | None, now: float) -> Report | None:
        """Return the report that is due; None: none is. ``lag``: see `Report`."""
        self._detect_stall(lag, now)
        if not self._has_news:
            return None
        if lag == 0 and self._has_backlog:
            kind = ReportKind.CAUGHT_UP
        elif now - self._last_at >= _EVERY_S:
            kind = ReportKind.PROGRESS
        else:
            return None
        total = self._total
        rate = (total - self._reported) / max(now - self._last_at, 1.0)
        self._has_backlog = kind is ReportKind.PROGRESS and (self._has_backlog or (lag or 0) > rate * _BACKLOG_S)
        self._reported, self._last_at, self._has_news = total, now, False
        return Report(kind, round(rate, 1), dict(self._totals), lag)

    def _detect_stall(self, lag: int | None, now: float) -> None:
        if lag == 0:
            self._stalled_since = None
        elif lag is not None and self._stalled_since is None:
            self._stalled_since = now
        if self._stalled_since is not None and now - self._stalled_since >= _BACKLOG_S:
            self._has_backlog = True

    def totals(self, lag: int | None, now: float) -> Report:
        """Return the report of the end; its rate is the mean since the start."""
        rate = self._total / max(now - self._began_at, 1.0)
        return Report(ReportKind.TOTALS, round(rate, 1), dict(self._totals), lag)

    @property
    def _total(self) -> int:
        return sum(self._totals[name] for name in self._finished)


_LEADING: Final = {ReportKind.PROGRESS: None, ReportKind.CAUGHT_UP: "caught up", ReportKind.TOTALS: "totals"}


def progress_line(event: Mapping[str, Any]) -> str | None:
    """Return a log event of a report as the line for a terminal; None: it is another event."""
    if event.get("event") not in _LEADING:
        return None
    numbers = {name: value for name, value in event.items() if type(value) is int and not name.startswith("quota_")}
    parts = [event.get("loop"), _LEADING[ReportKind(event["event"])], rate_text(event.get("rate_per_s", 0.0))]
    parts += [f"{name.replace('_', ' ')} {value:,}" for name, value in numbers.items()]
    if (allowed := event.get("quota_allowed")) is not None:
        parts.append(f"quota {event.get('quota_used', 0):,}/{allowed:,}")
    return "  ".join(part for part in parts if part)


def rate_text(per_s: float) -> str:
    """Return a rate, such as ``5,010/s`` or ``0.3/s``."""
    return f"{per_s:,.0f}/s" if per_s >= _WHOLE_RATE or per_s == int(per_s) else f"{per_s:.1f}/s"
