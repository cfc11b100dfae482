"""Rows that show records: values as JSON and people read them, in full or as a line of a table.

Times are ISO 8601 in UTC. Hashes are hexadecimal, other bytes are text, with escapes where they are not UTF-8.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_scorer.core.desk.decoded_record import DecodedRecord
    from stream_scorer.core.desk.record_filter import RecordFilter
    from stream_scorer.core.records import Headers

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PREFIX: Final = "stream-scorer-"
_TIMES: Final = frozenset(
    {"occurred_at", "scored_at", "started_at", "finished_at", "planned_at", "not_before", "decided_at"}
)
# The field `place` of a decision: the column `place` of every topic is that of the record itself.
_DECIDED: Final = "decided_place"
# In a line of a table: of the value if it has the field, else of the header of that name.
_SHOWN: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "ContactFeatures": (
            *("contact_id", "event_id", "campaign_id", "occurred_at", "features"),
            *("deferred", "not-before", "held", "error-reason", "error-detail", "source"),
        ),
        "ContactScore": (
            *("contact_id", "score", "confidence_lower", "confidence_upper", "model_version", "review_reasons"),
            *("campaign_id", "error-reason", "error-detail", "source"),
        ),
        "BatchAudit": ("batch_id", "request_contacts", "api_status", "attempts", "latency_ms", "counts"),
        "CampaignCallback": (
            *("callback_id", "campaign_id", "contact_ids", "attempts", "not_before"),
            *("failed-rounds", "last-status", "held", "error-reason", "error-detail"),
        ),
        "CallbackReceipt": ("callback_id", "campaign_id", "contact_ids", "outcome", "attempts", "http_status"),
        "Decision": ("action", _DECIDED, "operator", "note", "job", "result_place"),
    }
)
_SHOWN_BESIDE_ENTRY: Final = ("batch_id", "api_status", "attempts")
_SHOWN_ENTRY: Final = ("contact_id", "outcome", "score", "reasons", "event_id", "source")
_DUE: Final = "not-before"
_MAX_TIME_DIGITS: Final = 15
_SHOWN_UNDECODABLE: Final = ("error-reason", "error-detail", "source")


def iso_time(time_ms: int) -> str | int | None:
    """Return Unix milliseconds as ISO 8601; a year past 9999 as the number; None for -1, a record without a time."""
    if time_ms == -1:
        return None
    try:
        moment = _EPOCH + timedelta(milliseconds=time_ms)
    except OverflowError:
        return time_ms
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def full_rows(decoded: DecodedRecord, selection: RecordFilter, *, raw: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the rows of a record in full: one, or one for each selected entry of an audit event.

    Args:
        decoded: the record.
        selection: of which audit entries are selected.
        raw: whether key and value are also shown as base64.
    """
    record = decoded.record
    for value, entry in _parts(decoded, selection):
        row: dict[str, Any] = {
            "place": decoded.place,
            "timestamp": iso_time(record.timestamp_ms),
            "key": None if record.key is None else _text(record.key),
            "headers": _headers(record.headers) if record.headers_readable else None,
            "schema": decoded.schema,
            "value": value,
        }
        if entry is not None:
            row["entry"] = entry
        row["error"] = decoded.error or None
        if raw:
            row["raw_key"], row["raw_value"] = _base64(record.key), _base64(record.value)
        yield row


def table_rows(decoded: DecodedRecord, selection: RecordFilter) -> Iterator[dict[str, Any]]:
    """Yield the lines of a table for a record: what matters of its value and its headers."""
    record = decoded.record
    headers = {name: value for name, value in _headers(record.headers).items() if name.startswith(_PREFIX)}
    for value, entry in _parts(decoded, selection):
        row: dict[str, Any] = {"place": decoded.place, "timestamp": iso_time(record.timestamp_ms)}
        if value is None:
            row |= {"key": None if record.key is None else _text(record.key), "error": decoded.error}
        for name in _shown(decoded, value, entry):
            if value is not None and name == _DECIDED:
                row[name] = value["place"]
            elif value is not None and name in value:
                row[name] = value[name]
            elif f"{_PREFIX}{name}" in headers:
                row[name] = _due(headers[f"{_PREFIX}{name}"]) if name == _DUE else headers[f"{_PREFIX}{name}"]
        yield row if entry is None else row | {name: entry[name] for name in _SHOWN_ENTRY}


def _shown(decoded: DecodedRecord, value: Mapping[str, Any] | None, entry: Mapping[str, Any] | None) -> tuple[str, ...]:
    if value is None:
        return _SHOWN_UNDECODABLE
    return _SHOWN.get(decoded.schema or "", ()) if entry is None else _SHOWN_BESIDE_ENTRY


def _parts(
    decoded: DecodedRecord, selection: RecordFilter
) -> Iterator[tuple[dict[str, Any] | None, dict[str, Any] | None]]:
    """Yield a value, or that of an audit event with each selected entry instead of all of them."""
    if decoded.value is None:
        yield None, None
        return
    value = readable_value(decoded.value)
    if "contacts" not in value or not selection.selects_entries(decoded.record):
        yield value, None
        return
    entries = value.pop("contacts")
    for entry in entries:
        if selection.matches_entry(decoded.record, entry["contact_id"], entry["event_id"], entry["source"]):
            yield value, entry


def readable_value(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a decoded value with readable times and bytes."""
    return {name: _readable(name, one) for name, one in value.items()}


def _readable(name: str, value: Any) -> Any:
    match value:
        case int() if name in _TIMES:
            return iso_time(value)
        case bytes():
            return value.hex() if name.endswith("hash") else _text(value)
        case list() if value and isinstance(value[0], dict):
            return [readable_value(one) for one in value]
        case _:
            return value


def _headers(headers: Headers) -> dict[str, Any]:
    """Return headers by name; a name that occurs several times has a list."""
    found: dict[str, list[str | None]] = {}
    for name, value in headers:
        found.setdefault(name, []).append(None if value is None else _text(value))
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _due(header: Any) -> Any:
    is_number = isinstance(header, str) and header.isascii() and header.isdigit()
    return iso_time(int(header)) if is_number and len(header) <= _MAX_TIME_DIGITS else header


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
