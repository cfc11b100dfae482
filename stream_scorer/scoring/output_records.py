"""Encoder of outcomes into records of the output topics: value, key, headers, and the fit to the size limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_scorer.core.retry_topics import DEFERRED_HEADER, RetryState, retry_topic, state_headers, state_of
from stream_scorer.core.scoring.score_encoder import ScoreEncoder
from stream_scorer.core.scoring.types import Deferred, Outcome, Rejected, Scored
from stream_scorer.kafka.producer.dead_letter import (
    contact_headers,
    error_headers,
    fit_to_limit,
    source_header,
    too_large,
    truncated,
)
from stream_scorer.kafka.producer.records import OutRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.records import Headers, SourceRecord
    from stream_scorer.scoring.ports import Trace


@dataclass(frozen=True, slots=True)
class OutputTopics:
    """The names of the output topics.

    Attributes:
        max_bytes: the largest record batch of each topic, in bytes.
        retries: base name of the retry topics.
    """

    scores: str
    review: str
    rejected: str
    audit: str
    max_bytes: Mapping[str, int]
    retries: str


class Encoder:
    """Builder of the output record of an outcome (contract, sections 1 to 3).

    Args:
        topics: the output topics.
        group_id: the consumer group, which the records of retry topics name.
        score_codec: of ``ContactScore``.
        trace: propagates the trace context of the input record.
    """

    def __init__(self, topics: OutputTopics, group_id: str, score_codec: Codec, trace: Trace) -> None:
        self._topics = topics
        self._group_id = group_id
        self._trace = trace
        self._write = ScoreEncoder(score_codec).encode

    def encode(self, outcome: Outcome, batch_id: str) -> OutRecord:
        """Return the record for one outcome; ``batch_id``: of its audit event, empty for a deferred contact."""
        if isinstance(outcome, Scored):
            return self._scored(outcome, batch_id)
        if isinstance(outcome, Rejected):
            return self._rejected(outcome, batch_id)
        return self._deferred(outcome)

    def too_large(self, record: OutRecord) -> bool:
        """Return whether the record's topic would reject it for its size."""
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
        return truncated(out, limit) if rejected.truncated else fit_to_limit(out, limit)

    def _deferred(self, deferred: Deferred) -> OutRecord:
        """Return the input record for its retry topic, byte for byte except for the headers with its state."""
        record = deferred.record
        topic = retry_topic(self._topics.retries, deferred.level)
        state = RetryState(
            record.source, deferred.rounds, deferred.not_before_ms, group=self._group_id, held=deferred.held
        )
        headers = [*contact_headers(record.headers), *state_headers(state)]
        return OutRecord(topic, record.key, record.value, self._trace.sending(record, topic, headers))

    def _headers(self, record: SourceRecord, batch_id: str, topic: str) -> Headers:
        headers: Headers = [source_header(record), ("stream-scorer-batch", batch_id.encode())]
        if record.origin:
            headers.append((DEFERRED_HEADER, b"%d" % state_of(record).rounds))
        if record.headers:
            headers += contact_headers(record.headers)
        return self._trace.sending(record, topic, headers)
