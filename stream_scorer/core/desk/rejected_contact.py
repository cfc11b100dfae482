"""Rejected contact: a record of the rejected topic with its decoded event."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.desk.record_counts import UNKNOWN, campaign_name, time_of_ms
from stream_scorer.core.desk.record_filter import RecordIds
from stream_scorer.core.desk.rejected_record import RejectedRecord, parse_rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_scorer.core.records import SourceRecord
    from stream_scorer.core.scoring.types import ContactEvent


class RejectedContact(NamedTuple):
    """Rejected contact; ``event``: None if the value is missing or cannot be decoded."""

    rejected: RejectedRecord
    event: ContactEvent | None

    @property
    def record(self) -> SourceRecord:
        return self.rejected.record

    @property
    def reasons(self) -> tuple[str, ...]:
        return (self.rejected.reason,)

    @property
    def ids(self) -> RecordIds:
        event = self.event
        return (
            RecordIds() if event is None else RecordIds((event.contact_id,), (event.event_id,), self.rejected.batch_id)
        )

    @property
    def campaign(self) -> str:
        return UNKNOWN if self.event is None else campaign_name(self.event.campaign_id)

    @property
    def values(self) -> Mapping[str, Any]:
        """The values of `stream_scorer.core.desk.expression.REJECTED_NAMES`."""
        rejected, event = self.rejected, self.event
        values: dict[str, Any] = {
            "reason": rejected.reason,
            "detail": rejected.detail,
            "status": rejected.status,
            "replays": rejected.replays,
            "rejected_at": _time(rejected.rejected_at),
        }
        if event is None:
            return values
        return values | {
            "contact_id": event.contact_id,
            "event_id": event.event_id,
            "campaign_id": event.campaign_id,
            "model_version": event.model_version,
            "occurred_at": time_of_ms(event.occurred_at_ms),
            "features": event.features,
            "attributes": dict(event.attributes),
        }


def parse_rejected_contact(
    record: SourceRecord, decode: Callable[[bytes | None], ContactEvent]
) -> RejectedContact | None:
    """Return the rejected contact of a record; None: it is no rejection, but another record of the same topic.

    Args:
        record: of the rejected topic.
        decode: decodes its value, or raises `UndecodableError`.
    """
    rejected = parse_rejected(record)
    return RejectedContact(rejected, event_of(record, decode)) if rejected.is_rejection else None


def event_of(record: SourceRecord, decode: Callable[[bytes | None], ContactEvent]) -> ContactEvent | None:
    """Return the event of a record; None: its value is missing or cannot be decoded."""
    try:
        return decode(record.value)
    except UndecodableError:
        return None


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
