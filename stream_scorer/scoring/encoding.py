"""Turns outcomes into the records of the output topics: value, key, headers, and what to do when one is too large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_scorer.core.events import Headers, Outcome, Rejected, Scored, SourceRecord
from stream_scorer.core.score_writing import ScoreWriter
from stream_scorer.kafka.rejecting import error_headers, fitted, passed_on, source_header, stub, too_large
from stream_scorer.kafka.sink import OutRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.avro import Codec
    from stream_scorer.scoring.ports import Trace


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

    def __init__(self, topics: OutputTopics, score_codec: Codec, trace: Trace) -> None:
        self._topics = topics
        self._trace = trace
        self._write = ScoreWriter(score_codec).write

    def encode(self, outcome: Outcome, batch_id: str) -> OutRecord:
        """The record for one outcome, listed in the audit event ``batch_id``."""
        if isinstance(outcome, Scored):
            return self._scored(outcome, batch_id)
        return self._rejected(outcome, batch_id)

    def too_large(self, record: OutRecord) -> bool:
        """Whether the record's topic would refuse it for its size."""
        return too_large(record, self._topics.max_bytes[record.topic])

    def _scored(self, scored: Scored, batch_id: str) -> OutRecord:
        topic = self._topics.review if scored.review_reasons else self._topics.scores
        contact = scored.contact
        headers = self._headers(contact.record, batch_id, topic)
        return OutRecord(topic, contact.contact_id.encode(), self._write(scored), headers)

    def _rejected(self, rejected: Rejected, batch_id: str) -> OutRecord:
        record = rejected.record
        why = error_headers(rejected.reasons[0], rejected.detail, rejected.rejected_at_ms, rejected.api_status)
        topic = self._topics.rejected
        out = OutRecord(topic, record.key, record.value, [*self._headers(record, batch_id, topic), *why])
        limit = self._topics.max_bytes[topic]
        return stub(out, limit) if rejected.truncated else fitted(out, limit)

    def _headers(self, record: SourceRecord, batch_id: str, topic: str) -> Headers:
        headers: Headers = [source_header(record), ("stream-scorer-batch", batch_id.encode())]
        if record.headers:
            headers += passed_on(record.headers)
        return self._trace.sending(record, topic, headers)
