"""Spans of the scoring worker.

The trace of a sampled contact has ``process``, from poll to commit and below its producer's span, and ``send`` of its
output. Batch operations have traces of their own, linked with the contacts in both directions: ``poll``, ``process``
of a request with its HTTP attempts, ``commit``.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, TypeAlias

from stream_scorer.core.records import Partition
from stream_scorer.core.scoring.types import Deferred, Rejected
from stream_scorer.core.trace_context import NAMES, SAMPLED, TRACEPARENT, context_of, trace_flags, with_trace
from stream_scorer.telemetry.tracing.attributes import OUTCOME, REASONS, operation
from stream_scorer.telemetry.tracing.requests import RequestSpans
from stream_scorer.telemetry.tracing.spans import SpanKind, context_of_span, end_span, now_ns, unsampled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_scorer.core.records import Headers, SourceRecord
    from stream_scorer.core.scoring.api_response import ApiResponse
    from stream_scorer.core.scoring.request import Request
    from stream_scorer.core.scoring.types import Outcome
    from stream_scorer.telemetry.tracing.spans import Span, Spans

_Key: TypeAlias = "tuple[str, int, int]"


class _Contact:
    """Open spans of a sampled contact: ``process``, and ``send`` of the transaction in progress."""

    __slots__ = ("process", "send", "transaction")

    def __init__(self, process: Span) -> None:
        self.process = process
        self.send: Span | None = None
        self.transaction = 0


class ScoringTracer:
    """Tracer of the scoring worker; see ``scoring.ports.Trace``. Owned by the worker's thread.

    Args:
        spans: creates spans.
        topic: the features topic.
        group: the consumer group.
        api_url: URL of the score endpoint.
        login_url: URL of the token endpoint.
    """

    def __init__(self, spans: Spans, *, topic: str, group: str, api_url: str, login_url: str) -> None:
        self._spans = spans
        self._topic = topic
        self._group = group
        self._requests = RequestSpans(
            spans, topic=topic, group=group, api_url=api_url, login_url=login_url, processes=self._processes
        )
        self._contacts: dict[_Key, _Contact] = {}
        self._polled_ns = self._committed_ns = self._transaction = 0
        self._unsampled = itertools.count(1)
        self._unsampled_id = unsampled().trace_id >> 64

    # --- in

    def polling(self) -> None:
        """Record the start time of a poll."""
        self._polled_ns = now_ns()

    def polled(self, records: Sequence[SourceRecord]) -> None:
        """Start the spans of polled records."""
        links = []
        for record in records:
            topic = record.topic
            flags = trace_flags(record.headers) if record.headers else None
            if flags is None or flags < 0:
                parent = None
                if not self._spans.wants_root(f"process {topic}"):
                    continue
            elif flags & SAMPLED or not self._spans.asks_the_parent:
                parent = context_of(record.headers)
            else:
                continue
            attributes = operation(
                "process", "process", topic, group=self._group, place=(record.partition, record.offset)
            )
            span = self._spans.start(f"process {topic}", SpanKind.CONSUMER, attributes, parent=parent)
            if span is not None:
                self._contacts[_key(record)] = _Contact(span)
                links.append(context_of_span(span))
        if links:
            attributes = operation("poll", "receive", self._topic, group=self._group, count=len(records))
            poll = self._spans.root(f"poll {self._topic}", SpanKind.CLIENT, attributes, links, start_ns=self._polled_ns)
            end_span(poll)

    def revoked(self, partitions: Iterable[Partition]) -> None:
        """End the spans of unfinished contacts of revoked partitions."""
        revoked = {(partition.topic, partition.number) for partition in partitions}
        for key in [key for key in self._contacts if key[:2] in revoked]:
            contact = self._contacts.pop(key)
            if contact.send is not None:
                end_span(contact.send, error="not committed")
            end_span(contact.process, {OUTCOME: "given up"})

    # --- the API

    def response_received(self, request: Request, answer: ApiResponse) -> str | None:
        """Record a completed attempt, and return the trace id of its request; None: the request is not traced."""
        return self._requests.response_received(request, answer)

    def request_finished(self, request: Request) -> None:
        """End the span of a request that will not be sent again."""
        self._requests.request_finished(request)

    def _processes(self, records: Iterable[SourceRecord]) -> list[Span]:
        """Return the ``process`` spans of the sampled contacts."""
        if not self._contacts:
            return []
        found = (self._contacts.get(_key(record)) for record in records)
        return [contact.process for contact in found if contact is not None]

    # --- out

    def sending(self, record: SourceRecord, topic: str, headers: Headers) -> Headers:
        """Return the headers of an output, with the trace of its input record."""
        contact = self._contacts.get(_key(record))
        if contact is None:
            return self._published(headers)
        if contact.send is not None and contact.transaction == self._transaction:
            return with_trace(headers, context_of_span(contact.send))  # the same output, encoded again
        if contact.send is not None:
            end_span(contact.send, error="not committed")
        contact.transaction = self._transaction
        attributes = operation("send", "send", topic)
        contact.send = self._spans.child(f"send {topic}", SpanKind.PRODUCER, attributes, of=contact.process)
        return with_trace(headers, context_of_span(contact.send))

    def _published(self, headers: Headers) -> Headers:
        """Return the headers of an unsampled output: with its trace as received, or with a new unsampled one."""
        flags = trace_flags(headers)
        if flags is not None and flags >= 0:
            return headers
        number = next(self._unsampled)
        named = (TRACEPARENT, b"00-%016x%016x-%016x-00" % (self._unsampled_id, number, number))
        return [header for header in headers if header[0] not in NAMES] + [named] if flags else [*headers, named]

    def committing(self) -> None:
        """Record the start of a transaction."""
        self._committed_ns = now_ns()
        self._transaction += 1

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """End the spans of committed outcomes."""
        if not self._contacts:
            return
        links = []
        for outcome in outcomes:
            contact = self._contacts.pop(_key(outcome.record), None)
            if contact is None:
                continue
            links.append(context_of_span(contact.process))
            if contact.send is not None:
                end_span(contact.send)
            end_span(contact.process, _outcome_attribute(outcome))
        if links:
            attributes = operation("commit", "settle", self._topic, group=self._group, count=len(outcomes))
            end_span(
                self._spans.root(
                    f"commit {self._topic}", SpanKind.CLIENT, attributes, links, start_ns=self._committed_ns
                )
            )

    def close(self) -> None:
        """End all open spans and export the buffered ones."""
        self.revoked({Partition(topic, partition) for topic, partition, _ in self._contacts})
        self._requests.close()
        self._spans.close()


def _key(record: SourceRecord) -> _Key:
    """Return the key of a record: a slice, since it is computed several times a contact."""
    return record[:3]


def _outcome_attribute(outcome: Outcome) -> dict[str, str | tuple[str, ...]]:
    if isinstance(outcome, Deferred):
        return {OUTCOME: "deferred"}
    if isinstance(outcome, Rejected):
        return {OUTCOME: "rejected", REASONS: outcome.reasons}
    return {OUTCOME: "review", REASONS: outcome.review_reasons} if outcome.review_reasons else {OUTCOME: "scored"}
