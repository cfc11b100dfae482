"""Turns outcomes into the records of the output topics: value, key, headers, and what to do when one is too large."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stream_scorer.core.events import Headers, Outcome, Rejected, Scored, SourceRecord
from stream_scorer.core.score_writing import ScoreWriter
from stream_scorer.kafka.sink import OutRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.avro import Codec

HEADER_PREFIX = "stream-scorer-"
# What a record batch adds around one record at most, in bytes: its own header, lengths, offsets and timestamps.
_FRAME_BYTES = 512


@dataclass(frozen=True, slots=True)
class OutputTopics:
    """The names of the topics that a scorer writes, and the largest record batch that each takes, in bytes."""

    scores: str
    review: str
    rejected: str
    audit: str
    max_bytes: Mapping[str, int]


class Encoder:
    """Builds the output record of an outcome (contract, sections 1 to 3)."""

    def __init__(self, topics: OutputTopics, score_codec: Codec) -> None:
        self._topics = topics
        self._write = ScoreWriter(score_codec).write

    def encode(self, outcome: Outcome, batch_id: str) -> OutRecord:
        """The record for one outcome, listed in the audit event ``batch_id``."""
        if isinstance(outcome, Scored):
            return self._scored(outcome, batch_id)
        return self._rejected(outcome, batch_id)

    def too_large(self, record: OutRecord) -> bool:
        """Whether the record's topic would refuse it for its size."""
        return _size(record) > self._topics.max_bytes[record.topic] - _FRAME_BYTES

    def _scored(self, scored: Scored, batch_id: str) -> OutRecord:
        topic = self._topics.review if scored.review_reasons else self._topics.scores
        contact = scored.contact
        return OutRecord(topic, contact.contact_id.encode(), self._write(scored), _headers(contact.record, batch_id))

    def _rejected(self, rejected: Rejected, batch_id: str) -> OutRecord:
        record = rejected.record
        headers = [*_headers(record, batch_id), *_error_headers(rejected)]
        out = OutRecord(self._topics.rejected, record.key, record.value, headers)
        if not rejected.truncated and not self.too_large(out):
            return out
        # Too large for its topic: the headers say what it was and where it stands. What was passed on unchanged goes
        # only if even they do not fit.
        headers.append((f"{HEADER_PREFIX}error-truncated", b"true"))
        out = OutRecord(self._topics.rejected, record.key, None, headers)
        if not self.too_large(out):
            return out
        own = [(name, value) for name, value in headers if name.startswith(HEADER_PREFIX)]
        out = OutRecord(self._topics.rejected, record.key, None, own)
        return out if not self.too_large(out) else out._replace(key=None)


def _headers(record: SourceRecord, batch_id: str) -> Headers:
    headers: Headers = [
        ("stream-scorer-source", f"{record.topic}/{record.partition}/{record.offset}".encode()),
        ("stream-scorer-batch", batch_id.encode()),
    ]
    if record.headers:
        headers += [header for header in record.headers if not header[0].startswith(HEADER_PREFIX)]
    return headers


def _error_headers(rejected: Rejected) -> Headers:
    rejected_at = datetime.fromtimestamp(rejected.rejected_at_ms / 1000, UTC)
    headers: Headers = [
        ("stream-scorer-error-reason", rejected.reasons[0].encode()),
        ("stream-scorer-error-detail", rejected.detail.encode(errors="replace")),
        ("stream-scorer-error-timestamp", rejected_at.isoformat(timespec="milliseconds").encode()),
    ]
    if rejected.api_status is not None:
        headers.append(("stream-scorer-error-status", str(rejected.api_status).encode()))
    return headers


def _size(record: OutRecord) -> int:
    size = len(record.key or b"") + len(record.value or b"")
    for name, value in record.headers:
        size += len(name) + len(value or b"") + 10
    return size
