"""Encoder of the planner's and deliverer's decisions into records of the callback topics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from stream_scorer.callbacks.trace_headers import within_limit
from stream_scorer.core.callbacks.records import (
    callback_value,
    decision_headers,
    receipt_value,
    threshold_headers,
    unanswered_headers,
)
from stream_scorer.core.callbacks.retry_policy import DeferReason
from stream_scorer.core.callbacks.types import CallbackOutcome
from stream_scorer.core.retry_topics import HELD_HEADER, ROUNDS_HEADER
from stream_scorer.kafka.producer.dead_letter import (
    error_headers,
    fit_to_limit,
    forwarded_headers,
    source_header,
    too_large,
)
from stream_scorer.kafka.producer.records import OutRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.callbacks.retry_policy import Completed, DeferredDelivery
    from stream_scorer.core.callbacks.selection import Invalid
    from stream_scorer.core.callbacks.types import Callback
    from stream_scorer.core.records import Headers, SourceRecord

# The HTTP status of the last response, which decides between refused and given up.
LAST_STATUS_HEADER: Final = "stream-scorer-last-status"
_CAUSES_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class CallbackTopics:
    """The names of the callback topics, and the largest record batch of each, in bytes.

    ``retries``: the retry topics, the shortest delay first.
    """

    callbacks: str
    retries: tuple[str, ...]
    rejected: str
    receipts: str
    max_bytes: Mapping[str, int]


class CallbackEncoder:
    """Builder of the records (contract, sections 1 to 3)."""

    def __init__(self, topics: CallbackTopics, callback_codec: Codec, receipt_codec: Codec) -> None:
        self._topics = topics
        self._callback_codec = callback_codec
        self._receipt_codec = receipt_codec

    def planned(self, callback: Callback, trace: Headers) -> OutRecord:
        """Return the record of a callback to deliver; ``trace``: its trace context, left out if it does not fit."""
        record = self._callback(self._topics.callbacks, callback, trace)
        return record if self.fits(record) else self._callback(self._topics.callbacks, callback, [])

    def expired(self, callback: Callback, trace: Headers) -> OutRecord:
        """Return the receipt of a callback that expired before it was planned; ``trace``: its trace context."""
        value = receipt_value(callback, CallbackOutcome.EXPIRED, finished_at_ms=callback.planned_at_ms)
        return OutRecord(self._topics.receipts, callback.callback_id.encode(), self._receipt_codec.encode(value), trace)

    def invalid(self, unusable: Invalid) -> OutRecord:
        """Return the dead letter of a record that is no valid score or callback, unchanged."""
        why = error_headers(unusable.reason, unusable.detail, unusable.found_at_ms, None)
        return self._rejected(unusable.record, why, [])

    def completed(self, ended: Completed) -> list[OutRecord]:
        """Return the receipt and, if the callback was not delivered, its dead letter.

        A callback with contacts that are refused alone has a receipt for each contact, and one dead letter.
        """
        if ended.refused:
            return [*self._divided(ended), self._refused(ended, _refusal_headers(ended))]
        receipt = self._receipt(ended, ended.callback, ended.outcome, ended.http_status)
        if ended.outcome is CallbackOutcome.DELIVERED:
            return [receipt]
        reason = ended.outcome.value.lower()
        why = error_headers(reason, ended.detail, ended.finished_at_ms, ended.http_status)
        return [receipt, self._refused(ended, why)]

    def _refused(self, ended: Completed, why: Headers) -> OutRecord:
        """Return the dead letter of a callback, with the headers that its redelivery needs."""
        kept = [
            *decision_headers(ended.record.headers),
            *threshold_headers(ended.callback),
            *unanswered_headers(is_unanswered=ended.is_unanswered, may_be_repeat=ended.may_be_repeat),
        ]
        return self._rejected(ended.record, why, kept)

    def _divided(self, ended: Completed) -> Iterator[OutRecord]:
        callback = ended.callback
        refused = {one.position: one for one in ended.refused}
        for position in range(len(callback.sources)):
            only = slice(position, position + 1)
            part = replace(
                callback,
                sources=callback.sources[only],
                event_ids=callback.event_ids[only],
                contact_ids=callback.contact_ids[only],
            )
            if position in refused:
                yield self._receipt(ended, part, CallbackOutcome.REFUSED, refused[position].status)
            else:
                yield self._receipt(ended, part, ended.outcome, ended.http_status)

    def _receipt(
        self, ended: Completed, callback: Callback, outcome: CallbackOutcome, http_status: int | None
    ) -> OutRecord:
        value = receipt_value(
            callback,
            outcome,
            finished_at_ms=ended.finished_at_ms,
            http_status=http_status,
            latency_ms=ended.latency_ms,
        )
        headers = [*forwarded_headers(ended.record.headers), *decision_headers(ended.record.headers)]
        return OutRecord(
            self._topics.receipts, callback.callback_id.encode(), self._receipt_codec.encode(value), headers
        )

    def deferred(self, postponed: DeferredDelivery) -> OutRecord:
        """Return the callback's record for its retry topic."""
        record = postponed.record
        headers = [
            *forwarded_headers(record.headers),
            *within_limit(record),
            *decision_headers(record.headers),
            (ROUNDS_HEADER, str(postponed.rounds).encode()),
        ]
        if postponed.last_status is not None:
            headers.append((LAST_STATUS_HEADER, str(postponed.last_status).encode()))
        headers += unanswered_headers(is_unanswered=postponed.is_unanswered, may_be_repeat=postponed.may_be_repeat)
        if postponed.was_held or postponed.reason is DeferReason.HELD:
            headers.append((HELD_HEADER, postponed.callback.target.encode()))
        return self._callback(self._topics.retries[postponed.retry_level - 1], postponed.callback, headers)

    def fits(self, record: OutRecord) -> bool:
        """Return whether the record is within its topic's size limit."""
        return not too_large(record, self._topics.max_bytes[record.topic])

    def _callback(self, topic: str, callback: Callback, headers: Headers) -> OutRecord:
        value = self._callback_codec.encode(callback_value(callback))
        return OutRecord(topic, callback.callback_id.encode(), value, [*headers, *threshold_headers(callback)])

    def _rejected(self, record: SourceRecord, why: Headers, kept: Headers) -> OutRecord:
        headers = [source_header(record), *forwarded_headers(record.headers), *kept, *why]
        topic = self._topics.rejected
        return fit_to_limit(OutRecord(topic, record.key, record.value, headers), self._topics.max_bytes[topic])


def _refusal_headers(ended: Completed) -> Headers:
    """Return the headers of a callback with refused contacts: the most frequent reason, and how many have which."""
    counts = Counter((one.reason, one.detail) for one in ended.refused)
    (reason, _), _ = counts.most_common(1)[0]
    causes = "; ".join(f"{amount} {name}: {detail}" for (name, detail), amount in counts.most_common(_CAUSES_SHOWN))
    text = f"{len(ended.refused)} of {len(ended.callback.sources)} contacts are refused: {causes}"
    status = next((one.status for one in ended.refused if one.status is not None), None)
    return error_headers(reason, text, ended.finished_at_ms, status)


def rejected_by_broker_message(errors: Mapping[int, str], records: list[OutRecord]) -> str:
    """Return which topic rejects which record."""
    index, message = next(iter(errors.items()))
    return f"topic {records[index].topic} refuses a record: {message}"
