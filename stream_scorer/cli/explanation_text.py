"""Explanation of a rejected contact as text and as a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_scorer.core.desk.explanation import OK
from stream_scorer.core.desk.record_rows import iso_time
from stream_scorer.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_scorer.core.desk.explanation import Explanation

_WIDTH: Final = 12
_AUDITED: Final = ("batch_id", "model_id", "model_version", "api_status", "attempts", "correlation_id", "outcome")


def explanation_lines(one: Explanation) -> Iterator[str]:
    """Yield the lines of an explanation; control characters of the contact are escaped."""
    status = "" if one.status is None else f", HTTP {one.status}"
    yield printable(f"{one.place}  {one.state}, {one.reason}{status}")
    yield _line("detail", one.detail)
    if one.contact_id:
        occurred = "" if one.occurred_at_ms is None else iso_time(one.occurred_at_ms)
        yield _line("contact", f"{one.contact_id}, event {one.event_id}, campaign {one.campaign_id}, {occurred}")
    else:
        yield _line("contact", "cannot be decoded")
    yield _line("input", f"{one.source or 'unknown'}, rejected {one.rejected_at}, replayed {one.replays} times before")
    for check in one.features:
        mark = " " if check.finding == OK or check.finding.startswith("imputed") else "!"
        yield printable(f"  {mark} {check.name} = {check.value!r}  [{check.rule}]  {check.finding}")
    if one.audit is None:
        yield _line("audit", "no entry found")
    else:
        said = (f"{name} {one.audit[name]}" for name in _AUDITED if one.audit.get(name) is not None)
        yield _line("audit", ", ".join(said))
    yield _line("today", one.today)
    yield _line("remedy", one.remedy)
    yield _line("command", one.command)
    yield ""


def as_row(one: Explanation) -> dict[str, Any]:
    """Return an explanation as a row."""
    row = one._asdict()
    row["state"] = str(one.state)
    row["occurred_at"] = None if (at_ms := row.pop("occurred_at_ms")) is None else iso_time(at_ms)
    row["features"] = [check._asdict() for check in one.features]
    row["audit"] = None if one.audit is None else {name: one.audit.get(name) for name in _AUDITED}
    return row


def _line(name: str, text: str) -> str:
    return printable(f"  {name:<{_WIDTH}}{text}")
