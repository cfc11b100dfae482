"""History of one contact: what happened to it, from the records of all topics, in order.

The order is that of Kafka's timestamps. But an event never stands before its cause, because the clocks of producers and
workers may differ: a score stands behind its input, a receipt behind its callback, a replayed input behind its
decision. Events of one time stand in the order of the pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_scorer.core.desk.decisions import DECISION_HEADER
from stream_scorer.core.desk.record_filter import BATCH_HEADER
from stream_scorer.core.desk.record_rows import iso_time
from stream_scorer.core.desk.rejected_record import REPLAY_OF_HEADER
from stream_scorer.core.retry_topics import (
    DEFERRED_HEADER,
    HELD_HEADER,
    NOT_BEFORE_HEADER,
    ROUNDS_HEADER,
    SOURCE_HEADER,
    parse_number,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from stream_scorer.core.desk.decoded_record import DecodedRecord
    from stream_scorer.core.desk.record_filter import RecordFilter

_ERROR: Final = "stream-scorer-error-"
_LAST_STATUS: Final = "stream-scorer-last-status"
_MAX_TIME_DIGITS: Final = 15


class Happened(StrEnum):
    """Kinds of events, in the order of the pipeline."""

    RECEIVED = "received"
    UNDECODABLE = "undecodable"
    DEFERRED = "deferred"
    SCORED = "scored"
    REVIEW = "review"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    CALLBACK_PLANNED = "callback planned"
    CALLBACK_DEFERRED = "callback deferred"
    DELIVERED = "delivered"
    REFUSED = "refused"
    GAVE_UP = "gave up"
    EXPIRED = "expired"
    CALLBACK_REJECTED = "callback rejected"
    DECIDED = "decided"


_GONE: Final = "known from the audit only"
_ORDER: Final = {kind: number for number, kind in enumerate(Happened)}
_RECEIPTS: Final = {
    "DELIVERED": Happened.DELIVERED,
    "REFUSED": Happened.REFUSED,
    "GAVE_UP": Happened.GAVE_UP,
    "EXPIRED": Happened.EXPIRED,
}
_AUDITED: Final = {"SCORED": Happened.SCORED, "REVIEW": Happened.REVIEW, "REJECTED": Happened.REJECTED}


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """Event in the history of a contact.

    Attributes:
        kind: what happened.
        time_ms: Kafka's timestamp of the record, Unix milliseconds; -1: it has none.
        place: of the record; of an audit entry without its outcome, that of the audit event.
        event_id: of the contact; empty if it is not known.
        causes: places of the records that it was made from.
        details: what a person wants to know of it, by name.
        callback_id: of a callback or receipt; else empty.
        batch_id: request of an outcome; else empty.
    """

    kind: Happened
    time_ms: int
    place: str
    event_id: str = ""
    causes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    callback_id: str = ""
    batch_id: str = ""

    def as_row(self) -> dict[str, Any]:
        """Return the row of a structured format."""
        return {
            "time": iso_time(self.time_ms),
            "what": self.kind.value,
            "place": self.place,
            "event_id": self.event_id,
            "from": list(self.causes),
            "details": dict(self.details),
        }

    def as_line(self) -> dict[str, Any]:
        """Return the line of a table."""
        named = [f"{name} {_short(value)}" for name, value in self.details.items() if value not in (None, "", [], {})]
        return {
            "time": iso_time(self.time_ms),
            "what": self.kind.value,
            "place": self.place,
            "event_id": self.event_id,
            "from": ", ".join(self.causes),
            "details": ", ".join(named),
        }


class AuditEntry(NamedTuple):
    """Audit entry of the contact: what the outcome itself does not have.

    Attributes:
        source: place of the input.
        batch_id: the request.
        event: used if the outcome is not on its topic any more.
    """

    source: str
    batch_id: str
    event: HistoryEvent


class History:
    """Collector of the records of one contact.

    Args:
        selection: selects the contact.
    """

    def __init__(self, selection: RecordFilter) -> None:
        self._selection = selection
        self._events: list[HistoryEvent] = []
        self._entries: list[AuditEntry] = []

    @property
    def places(self) -> frozenset[str]:
        """Places of the records so far, about which there may be decisions."""
        return frozenset(event.place for event in self._events)

    def add(self, decoded: DecodedRecord, *, is_retry: bool) -> None:
        """Add a record of the contact; ``is_retry``: its topic is a retry topic."""
        if decoded.schema == "BatchAudit":
            self._entries += _audit_entries(decoded, self._selection)
        else:
            self._events.append(_event(decoded, is_retry=is_retry))

    def ordered(self) -> list[HistoryEvent]:
        """Return all events in order; an outcome has the facts of its audit entry."""
        entries: dict[tuple[str, str], list[AuditEntry]] = {}
        for entry in self._entries:
            entries.setdefault((entry.source, entry.batch_id), []).append(entry)
        events = []
        for event in self._events:
            found = entries.get((event.causes[0] if event.causes else "", event.batch_id))
            if found and event.kind in _AUDITED.values():
                audited = found.pop().event.details
                event = replace(event, details={**audited, **event.details, "audit": audited["audit"]})  # noqa: PLW2901
            events.append(event)
        rest = [
            replace(one.event, details={**one.event.details, "note": _GONE})
            for some in entries.values()
            for one in some
        ]
        return _in_order([*events, *rest])


def _event(decoded: DecodedRecord, *, is_retry: bool) -> HistoryEvent:
    headers = _headers(decoded)
    value = decoded.value or {}
    match decoded.schema:
        case "ContactScore" if f"{_ERROR}reason" not in headers:
            kind = Happened.REVIEW if value["review_reasons"] else Happened.SCORED
            if DECISION_HEADER in headers:
                kind = Happened.ACCEPTED
            details = _score_details(value)
        case "CampaignCallback" | "ContactScore":
            kind, details = _callback(value, headers, is_retry=is_retry)
        case "CallbackReceipt":
            kind = _RECEIPTS.get(value["outcome"], Happened.REFUSED)
            details = {
                name: value[name] for name in ("callback_id", "attempts", "http_status", "campaign_id", "target")
            }
        case "Decision":
            kind = Happened.DECIDED
            details = {name: value[name] for name in ("action", "job", "operator", "note", "result_place", "changes")}
        case _:
            kind, details = _contact(value, headers, is_retry=is_retry)
    if decoded.error:
        details["error"] = decoded.error
    for name, header in (("decision", DECISION_HEADER), ("replay_of", REPLAY_OF_HEADER)):
        if header in headers:
            details[name] = headers[header]
    return HistoryEvent(
        kind,
        decoded.record.timestamp_ms,
        decoded.place,
        decoded.ids.event_ids[0] if len(decoded.ids.event_ids) == 1 else "",
        _causes(decoded, headers, kind),
        details,
        callback_id=value.get("callback_id", ""),
        # The audit entry is that of the outcome, which was in review, not that of the accepted score.
        batch_id="" if kind is Happened.ACCEPTED else headers.get(BATCH_HEADER, ""),
    )


def _contact(
    value: Mapping[str, Any], headers: Mapping[str, str], *, is_retry: bool
) -> tuple[Happened, dict[str, Any]]:
    if f"{_ERROR}reason" in headers:
        return Happened.REJECTED, _error_details(headers)
    if not value:
        return Happened.UNDECODABLE, {}
    if is_retry:
        details: dict[str, Any] = {"rounds": headers.get(DEFERRED_HEADER), "due": _due(headers.get(NOT_BEFORE_HEADER))}
        return Happened.DEFERRED, {**details, "held": headers.get(HELD_HEADER)}
    occurred_at = value.get("occurred_at")
    return Happened.RECEIVED, {
        "campaign_id": value.get("campaign_id"),
        "model_version": value.get("model_version"),
        "occurred_at": None if occurred_at is None else iso_time(occurred_at),
    }


def _callback(
    value: Mapping[str, Any], headers: Mapping[str, str], *, is_retry: bool
) -> tuple[Happened, dict[str, Any]]:
    details = {name: value[name] for name in ("callback_id", "campaign_id", "target", "attempts") if name in value}
    if f"{_ERROR}reason" in headers:
        return Happened.CALLBACK_REJECTED, {**_error_details(headers), **details}
    if not is_retry:
        return Happened.CALLBACK_PLANNED, {**details, "contacts": len(value["contact_ids"])}
    return Happened.CALLBACK_DEFERRED, {
        **details,
        "rounds": headers.get(ROUNDS_HEADER),
        "last_status": headers.get(_LAST_STATUS),
        "due": iso_time(value["not_before"]),
        "held": headers.get(HELD_HEADER),
    }


def _score_details(value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "score": value["score"],
        "confidence_lower": value["confidence_lower"],
        "confidence_upper": value["confidence_upper"],
        "review_reasons": value["review_reasons"],
        "model_version": value["model_version"],
        "imputed_features": value["imputed_features"],
    }


def _error_details(headers: Mapping[str, str]) -> dict[str, Any]:
    return {name: headers.get(f"{_ERROR}{name}") for name in ("reason", "detail", "status")}


def _audit_entries(decoded: DecodedRecord, selection: RecordFilter) -> Iterator[AuditEntry]:
    batch = decoded.value or {}
    for entry in batch["contacts"]:
        if not selection.matches_entry(decoded.record, entry["contact_id"], entry["event_id"], entry["source"]):
            continue
        details = {
            "score": entry["score"],
            "reasons": list(entry["reasons"]),
            "batch_id": batch["batch_id"],
            "api_status": batch["api_status"],
            "attempts": batch["attempts"],
            "billed": entry["billed"],
            "reused_from": entry["reused_from"],
            "correlation_id": batch["correlation_id"],
            "audit": decoded.place,
        }
        event = HistoryEvent(
            _AUDITED.get(entry["outcome"], Happened.REJECTED),
            decoded.record.timestamp_ms,
            decoded.place,
            entry["event_id"],
            (entry["source"],),
            details,
        )
        yield AuditEntry(entry["source"], batch["batch_id"], event)


def _causes(decoded: DecodedRecord, headers: Mapping[str, str], kind: Happened) -> tuple[str, ...]:
    value = decoded.value or {}
    if kind is Happened.DECIDED:
        return (value["place"],)
    if kind is Happened.RECEIVED:
        return (headers[REPLAY_OF_HEADER],) if REPLAY_OF_HEADER in headers else ()
    if SOURCE_HEADER in headers:
        return (headers[SOURCE_HEADER],)
    return tuple(value.get("sources", ()))


# --- order


def _in_order(events: list[HistoryEvent]) -> list[HistoryEvent]:
    by_place = {event.place: event for event in events}
    made_by = {event.details["result_place"]: event for event in events if event.details.get("result_place")}
    planned = {event.callback_id: event for event in events if event.kind is Happened.CALLBACK_PLANNED}
    keys: dict[int, tuple[int, int]] = {}

    def causes_of(event: HistoryEvent) -> Iterable[HistoryEvent | None]:
        yield from (by_place.get(place) for place in event.causes)
        yield made_by.get(event.place)
        if event.callback_id:
            yield planned.get(event.callback_id)

    def key(event: HistoryEvent) -> tuple[int, int]:
        """Return the time and the number of causes before it."""
        number = id(event)
        if number not in keys:
            # A topic that was created again may make a record its own cause.
            keys[number] = (event.time_ms, 0)
            before = [key(cause) for cause in causes_of(event) if cause is not None and cause is not event]
            latest = max((time_ms for time_ms, _ in before), default=-1)
            depth = max((depth + 1 for _, depth in before), default=0)
            keys[number] = (max(event.time_ms, latest), depth)
        return keys[number]

    return sorted(events, key=lambda event: (*key(event), _ORDER[event.kind], event.place))


# --- texts


def _headers(decoded: DecodedRecord) -> dict[str, str]:
    """Return the first value of each header."""
    found: dict[str, str] = {}
    for name, value in decoded.record.headers:
        found.setdefault(name, (value or b"").decode(errors="backslashreplace"))
    return found


def _due(header: str | None) -> str | int | None:
    due_ms = None if header is None else parse_number(header.encode(), _MAX_TIME_DIGITS)
    return None if not due_ms else iso_time(due_ms)


def _short(value: Any) -> str:
    match value:
        case float():
            return f"{value:.4g}"
        case list() | tuple():
            return " ".join(map(str, value))
        case dict():
            return " ".join(f"{name}={one}" for name, one in value.items())
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)
