"""Records of the rejected topics: the original, byte for byte, and headers with the reason."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from stream_scorer.core.desk.rejected_record import REPLAY_OF_HEADER, REPLAYS_HEADER

if TYPE_CHECKING:
    from stream_scorer.core.records import Headers, SourceRecord
    from stream_scorer.kafka.producer.records import OutRecord

HEADER_PREFIX: Final = "stream-scorer-"
REPLAY_HEADERS: Final = frozenset({REPLAYS_HEADER, REPLAY_OF_HEADER})
_SOURCE_HEADER: Final = f"{HEADER_PREFIX}source"
# Upper bound of the bytes that a record batch adds to one record: header, lengths, offsets and timestamps.
FRAME_BYTES: Final = 512
_HEADER_FRAME_BYTES: Final = 10


def source_header(record: SourceRecord) -> tuple[str, bytes]:
    """Return the header that names the input of a record."""
    return (_SOURCE_HEADER, record.source.encode())


def forwarded_headers(headers: Headers) -> Headers:
    """Return the headers of an input that its output carries unchanged: all but the service's own."""
    return [header for header in headers if not header[0].startswith(HEADER_PREFIX)]


def contact_headers(headers: Headers) -> Headers:
    """Return the headers of a contact that its output carries unchanged: also those of its replay."""
    return [one for one in headers if not one[0].startswith(HEADER_PREFIX) or one[0] in REPLAY_HEADERS]


def error_headers(reason: str, detail: str, at_ms: int, status: int | None) -> Headers:
    """Return headers with the reason; ``at_ms``: Unix milliseconds, ``status``: HTTP status of the API, if any."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    headers: Headers = [
        (f"{HEADER_PREFIX}error-reason", reason.encode()),
        (f"{HEADER_PREFIX}error-detail", detail.encode(errors="replace")),
        (f"{HEADER_PREFIX}error-timestamp", at.isoformat(timespec="milliseconds").encode()),
    ]
    if status is not None:
        headers.append((f"{HEADER_PREFIX}error-status", str(status).encode()))
    return headers


def too_large(record: OutRecord, max_bytes: int) -> bool:
    """Return whether a topic with a limit of ``max_bytes`` a record batch would refuse the record for its size."""
    size = len(record.key or b"") + len(record.value or b"")
    for name, value in record.headers:
        size += len(name) + len(value or b"") + _HEADER_FRAME_BYTES
    return size > max_bytes - FRAME_BYTES


def fit_to_limit(record: OutRecord, max_bytes: int) -> OutRecord:
    """Return the record if its topic accepts its size, else a shortened one (see ``truncated``)."""
    return truncated(record, max_bytes) if too_large(record, max_bytes) else record


def truncated(record: OutRecord, max_bytes: int) -> OutRecord:
    """Return the record without its value; the headers still have the reason and the input's offset.

    Forwarded headers are dropped only if even the headers do not fit, and then the key.
    """
    headers = [*record.headers, (f"{HEADER_PREFIX}error-truncated", b"true")]
    out = record._replace(value=None, headers=headers)
    if not too_large(out, max_bytes):
        return out
    out = out._replace(headers=[(name, value) for name, value in headers if name.startswith(HEADER_PREFIX)])
    return out if not too_large(out, max_bytes) else out._replace(key=None)
