"""Decoded record of any topic of the service, or why it cannot be decoded, with the ids that select it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stream_scorer.core.desk.record_filter import RecordIds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.records import SourceRecord


@dataclass(frozen=True, slots=True)
class DecodedRecord:
    """Record with its value.

    Attributes:
        record: the record as it was read.
        schema: name of the schema that the value was resolved to; None: it cannot be decoded.
        value: the decoded value, timestamps as integers; None: it cannot be decoded.
        error: why it cannot be decoded, in one sentence without content; otherwise empty.
    """

    record: SourceRecord
    schema: str | None
    value: Mapping[str, Any] | None
    error: str = ""
    ids: RecordIds = field(init=False)

    def __post_init__(self) -> None:
        """Collect the ids of the value."""
        object.__setattr__(self, "ids", RecordIds() if self.value is None else ids_of(self.value))

    @property
    def place(self) -> str:
        """``topic/partition/offset`` of the record itself."""
        return f"{self.record.topic}/{self.record.partition}/{self.record.offset}"


def ids_of(value: Mapping[str, Any]) -> RecordIds:
    """Return the ids of a decoded value of any schema of the service."""
    entries = value.get("contacts")
    if entries is not None:
        return RecordIds(
            contact_ids=tuple(entry["contact_id"] for entry in entries),
            event_ids=tuple(entry["event_id"] for entry in entries),
            batch_id=value["batch_id"],
            sources=tuple(entry["source"] for entry in entries),
        )
    if "contact_ids" in value:
        return RecordIds(tuple(value["contact_ids"]), tuple(value["event_ids"]), sources=tuple(value["sources"]))
    if "contact_id" in value:
        return RecordIds((value["contact_id"],), (value["event_id"],), value.get("batch_id"))
    if "decision_id" in value:
        return RecordIds(sources=tuple(place for place in (value["place"], value["result_place"]) if place))
    return RecordIds()
