"""Held callbacks: their bodies do not fit the present target, so they wait in the last retry topic.

They are shown, and not decided. The campaign worker still delivers each once, so a replay would be a second delivery,
and a discarded one would be delivered nevertheless.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_scorer.core.desk.record_counts import campaign_name
from stream_scorer.core.desk.redelivery import ids_of_callback, values_of_callback
from stream_scorer.core.retry_topics import HELD_HEADER, parse_number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.callbacks.types import Callback
    from stream_scorer.core.desk.record_filter import RecordIds
    from stream_scorer.core.records import Headers, SourceRecord

REMEDY: Final = (
    "set the former target or columns back, and the next start of `stream-scorer callbacks` delivers them; otherwise"
    " each ends 7 days after it was planned, and `deliveries replay --retarget` builds a new body"
)
_HELD: Final = "held"
_FITS: Final = "its body fits the present target: the next start of `stream-scorer callbacks` delivers it"
_STATUS_HEADER: Final = "stream-scorer-last-status"
_STATUS_DIGITS: Final = 4


class HeldCallback(NamedTuple):
    """Record of a held callback; ``misfit``: why its body does not fit the present target, None: it does."""

    record: SourceRecord
    callback: Callback
    misfit: str | None

    @property
    def reasons(self) -> tuple[str, ...]:
        return (_HELD,)

    @property
    def detail(self) -> str:
        """Why it is held."""
        return self.misfit or _FITS

    @property
    def ids(self) -> RecordIds:
        return ids_of_callback(self.callback)

    @property
    def campaign(self) -> str:
        return campaign_name(self.callback.campaign_id)

    @property
    def values(self) -> Mapping[str, Any]:
        """The values of `stream_scorer.core.desk.expression.DELIVERY_NAMES`."""
        status = next((value for name, value in self.record.headers if name == _STATUS_HEADER), None)
        own = {"reason": _HELD, "detail": self.detail, "status": parse_number(status, _STATUS_DIGITS)}
        return own | values_of_callback(self.callback)


def is_held(headers: Headers) -> bool:
    """Return whether the headers of a record in a retry topic are those of a held callback."""
    return any(name == HELD_HEADER for name, _ in headers)


def not_decided_text(count: int) -> str:
    """Return why held callbacks are not decided, and what to do."""
    return (
        f"{count:,} selected callbacks are held (`deliveries list --held`): the campaign worker still delivers each, so"
        f" they are not decided; {REMEDY}"
    )
