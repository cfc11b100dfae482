"""Spans of the campaign worker.

A callback has a trace of its own, which links its sampled contacts: ``send`` when it is planned, ``process`` when it is
delivered, with its HTTP attempts. The trace of each of these contacts ends with ``callback``, which links back.
Planner and deliverer have a tracer each, owned by their threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.callbacks.trace_headers import contacts_header, contacts_of, trace_contexts
from stream_scorer.core.callbacks.retry_policy import Completed, DeferredDelivery
from stream_scorer.core.callbacks.types import CallbackOutcome
from stream_scorer.core.records import key_of
from stream_scorer.core.trace_context import context_of
from stream_scorer.telemetry.tracing.attributes import CALLBACK_ID, OUTCOME, HttpAttributes, end_request, operation
from stream_scorer.telemetry.tracing.spans import SpanKind, add_link, context_of_span, end_span, from_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_scorer.core.callbacks.retry_policy import Delivery, DeliveryOutcome
    from stream_scorer.core.callbacks.selection import Examined
    from stream_scorer.core.callbacks.types import Callback, DeliveryAnswer
    from stream_scorer.core.records import Headers, Partition, RecordKey
    from stream_scorer.core.trace_context import TraceContext
    from stream_scorer.telemetry.tracing.spans import Span, Spans


class PlannerTracer:
    """Tracer of the planner; see ``callbacks.trace_headers.PlannerTrace``.

    Args:
        spans: creates spans.
        topic: the callbacks topic.
        receipts: the receipts topic.
    """

    def __init__(self, spans: Spans, topic: str, receipts: str) -> None:
        self._spans = spans
        self._topic = topic
        self._receipts = receipts
        self._sending: list[Span] = []

    def planning(self, callbacks: Sequence[Callback], examined: Iterable[Examined]) -> Mapping[str, Headers]:
        """Return the headers of planned callbacks, by callback id."""
        headers: dict[str, Headers] = {}
        for callback_id, contexts in trace_contexts(callbacks, examined).items():
            links = [context for context in contexts if context.sampled]
            headers[callback_id] = (
                [*self._send(self._topic, callback_id, links), *contacts_header(links)]
                if links
                else contexts[0].headers
            )
        return headers

    def expiring(self, expired: Sequence[Callback], examined: Iterable[Examined]) -> Mapping[str, Headers]:
        """Return the receipt headers of expired callbacks, by callback id, and end the traces of their contacts."""
        headers: dict[str, Headers] = {}
        planned_at_ms = {callback.callback_id: callback.planned_at_ms for callback in expired}
        for callback_id, contexts in trace_contexts(expired, examined).items():
            links = [context for context in contexts if context.sampled]
            headers[callback_id] = self._send(self._receipts, callback_id, links) if links else contexts[0].headers
            for contact in links:
                attributes = operation("callback", "process", self._topic)
                attributes |= {CALLBACK_ID: callback_id, OUTCOME: CallbackOutcome.EXPIRED.value.lower()}
                began_ns = from_ms(planned_at_ms[callback_id])
                self._sending.append(
                    self._spans.child("callback", SpanKind.CONSUMER, attributes, of=contact, start_ns=began_ns)
                )
        return headers

    def _send(self, topic: str, callback_id: str, links: list[TraceContext]) -> Headers:
        """Start the trace of a record with links to its sampled contacts, and return the headers with its context."""
        attributes = operation("send", "send", topic) | {CALLBACK_ID: callback_id}
        span = self._spans.root(f"send {topic}", SpanKind.PRODUCER, attributes, links)
        self._sending.append(span)
        return context_of_span(span).headers

    def planned(self, *, committed: bool) -> None:
        """End the spans of a transaction."""
        for span in self._sending:
            end_span(span, error=None if committed else "not committed")
        self._sending.clear()


class _DeliverySpans:
    """Open spans of a callback in delivery: ``process``, and the attempt in flight."""

    __slots__ = ("attempt", "process")

    def __init__(self, process: Span) -> None:
        self.process = process
        self.attempt: Span | None = None


class DelivererTracer:
    """Tracer of the deliverer; see ``callbacks.trace_headers.DelivererTrace``.

    Args:
        spans: creates spans.
        topic: the callbacks topic.
        group: the deliverer's consumer group.
        url: URL of the callback target; None: the target does not use HTTP.
    """

    def __init__(self, spans: Spans, *, topic: str, group: str, url: str | None) -> None:
        self._spans = spans
        self._topic = topic
        self._group = group
        self._place = None if url is None else HttpAttributes(url)
        self._deliveries: dict[RecordKey, _DeliverySpans] = {}

    def attempting(self, delivery: Delivery) -> Delivery:
        """Return the delivery with the trace context of its request's span."""
        spans = self._deliveries.get(key_of(delivery.record)) or self._begin(delivery)
        if spans is None:
            context = context_of(delivery.record.headers)
            return delivery if context is None else delivery.under(context.traceparent)
        of = spans.process
        if self._place is not None:
            attributes = self._place.request(delivery.callback.attempts)
            of = spans.attempt = self._spans.child("POST", SpanKind.CLIENT, attributes, of=spans.process)
        return delivery.under(context_of_span(of).traceparent)

    def _begin(self, delivery: Delivery) -> _DeliverySpans | None:
        record = delivery.record
        contacts = contacts_of(record)
        if not contacts:
            return None
        attributes = operation(
            "process", "process", record.topic, group=self._group, place=(record.partition, record.offset)
        )
        attributes[CALLBACK_ID] = delivery.callback.callback_id
        parent = context_of(record.headers)
        name = f"process {record.topic}"
        if parent is None:
            span = self._spans.root(name, SpanKind.CONSUMER, attributes, contacts)
        else:
            span = self._spans.child(name, SpanKind.CONSUMER, attributes, of=parent)
        spans = self._deliveries[key_of(record)] = _DeliverySpans(span)
        return spans

    def attempted(self, delivery: Delivery, answer: DeliveryAnswer) -> None:
        """End the span of an attempt."""
        spans = self._deliveries.get(key_of(delivery.record))
        if spans is None or spans.attempt is None:
            return
        end_request(spans.attempt, answer.status, None if answer.status is not None else answer.kind.value)
        spans.attempt = None

    def committed(self, outcomes: Iterable[DeliveryOutcome]) -> None:
        """End the spans of committed outcomes, and the traces of their contacts."""
        for outcome in outcomes:
            spans = self._deliveries.pop(key_of(outcome.record), None)
            if isinstance(outcome, Completed):
                self._callback_span(outcome, spans)
            if spans is not None:
                end_span(spans.process, {OUTCOME: _outcome_attribute(outcome)})

    def _callback_span(self, ended: Completed, spans: _DeliverySpans | None) -> None:
        for contact in contacts_of(ended.record):
            attributes = operation("callback", "process", self._topic, group=self._group)
            attributes |= {CALLBACK_ID: ended.callback.callback_id, OUTCOME: ended.outcome.value.lower()}
            began_ns = from_ms(ended.callback.planned_at_ms)
            span = self._spans.child("callback", SpanKind.CONSUMER, attributes, of=contact, start_ns=began_ns)
            if spans is not None:
                add_link(span, context_of_span(spans.process))
            end_span(span, end_ns=max(began_ns, from_ms(ended.finished_at_ms)))

    def revoked(self, partitions: Iterable[Partition]) -> None:
        """End the spans of revoked partitions, whose callbacks the new owner delivers."""
        revoked = set(partitions)
        for key in [key for key in self._deliveries if (key.topic, key.partition) in revoked]:
            spans = self._deliveries.pop(key)
            if spans.attempt is not None:
                end_span(spans.attempt)
            end_span(spans.process, {OUTCOME: "given up"})


def _outcome_attribute(outcome: DeliveryOutcome) -> str:
    match outcome:
        case Completed():
            return outcome.outcome.value.lower()
        case DeferredDelivery():
            return "postponed"
        case _:
            return "unusable"
