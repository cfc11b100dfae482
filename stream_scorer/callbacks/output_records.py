"""Turns what planner and deliverer decided into the records of the campaign topics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stream_scorer.callbacks.trace_headers import within_limit
from stream_scorer.core.callbacks.records import callback_value, receipt_value
from stream_scorer.core.callbacks.types import CallbackOutcome
from stream_scorer.kafka.producer.dead_letter import (
    error_headers,
    fit_to_limit,
    forwarded_headers,
    source_header,
    too_large,
)
from stream_scorer.kafka.producer.records import OutRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.callbacks.delivery_policy import Completed, DeferredDelivery
    from stream_scorer.core.callbacks.selection import Invalid
    from stream_scorer.core.callbacks.types import Callback
    from stream_scorer.core.records import Headers, SourceRecord

# On the retry topics: in how many rounds of attempts a callback has failed. The topic alone does not say it: a callback
# that was only put off stands in a tier too.
ROUNDS_HEADER: Final = "stream-scorer-failed-rounds"


@dataclass(frozen=True, slots=True)
class CallbackTopics:
    """The names of the topics that the campaign worker writes, and the largest record batch that each takes, in bytes.

    ``retries`` are the tiers, the shortest first.
    """

    callbacks: str
    retries: tuple[str, ...]
    rejected: str
    receipts: str
    max_bytes: Mapping[str, int]


class CallbackEncoder:
    """Builds the records (contract, sections 1 to 3)."""

    def __init__(self, topics: CallbackTopics, callback_codec: Codec, receipt_codec: Codec) -> None:
        self._topics = topics
        self._callback_codec = callback_codec
        self._receipt_codec = receipt_codec

    def planned(self, callback: Callback, trace: Headers) -> OutRecord:
        """A callback to be delivered; ``trace``: its trace context, which is left out where it would not fit."""
        record = self._callback(self._topics.callbacks, callback, trace)
        return record if self.fits(record) else record._replace(headers=[])

    def expired(self, callback: Callback, trace: Headers) -> OutRecord:
        """The receipt of a callback that was never one; ``trace``: its trace context."""
        value = receipt_value(callback, CallbackOutcome.EXPIRED, finished_at_ms=callback.planned_at_ms)
        return OutRecord(self._topics.receipts, callback.callback_id.encode(), self._receipt_codec.encode(value), trace)

    def invalid(self, unusable: Invalid) -> OutRecord:
        """A record that is no score, or no callback, as it came."""
        why = error_headers(unusable.reason, unusable.detail, unusable.found_at_ms, None)
        return self._rejected(unusable.record, why)

    def completed(self, ended: Completed) -> list[OutRecord]:
        """The receipt; where it was not delivered, the callback itself as well, as it came."""
        value = receipt_value(
            ended.callback,
            ended.outcome,
            finished_at_ms=ended.finished_at_ms,
            http_status=ended.http_status,
            latency_ms=ended.latency_ms,
        )
        key = ended.callback.callback_id.encode()
        headers = forwarded_headers(ended.record.headers)
        receipt = OutRecord(self._topics.receipts, key, self._receipt_codec.encode(value), headers)
        if ended.outcome is CallbackOutcome.DELIVERED:
            return [receipt]
        reason = ended.outcome.value.lower()
        why = error_headers(reason, ended.detail, ended.finished_at_ms, ended.http_status)
        return [receipt, self._rejected(ended.record, why)]

    def deferred(self, postponed: DeferredDelivery) -> OutRecord:
        """The callback for its next tier."""
        record = postponed.record
        headers = [
            *forwarded_headers(record.headers),
            *within_limit(record),
            (ROUNDS_HEADER, str(postponed.rounds).encode()),
        ]
        return self._callback(self._topics.retries[postponed.retry_level - 1], postponed.callback, headers)

    def fits(self, record: OutRecord) -> bool:
        """Whether the record's topic would take it."""
        return not too_large(record, self._topics.max_bytes[record.topic])

    def _callback(self, topic: str, callback: Callback, headers: Headers) -> OutRecord:
        value = self._callback_codec.encode(callback_value(callback))
        return OutRecord(topic, callback.callback_id.encode(), value, headers)

    def _rejected(self, record: SourceRecord, why: Headers) -> OutRecord:
        headers = [source_header(record), *forwarded_headers(record.headers), *why]
        topic = self._topics.rejected
        return fit_to_limit(OutRecord(topic, record.key, record.value, headers), self._topics.max_bytes[topic])


def rejected_by_broker_message(errors: Mapping[int, str], records: list[OutRecord]) -> str:
    """Say which topic refuses what it has to take."""
    index, message = next(iter(errors.items()))
    return f"topic {records[index].topic} refuses a record: {message}"
