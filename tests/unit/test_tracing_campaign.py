"""Spans of the campaign worker, and the trace headers of its records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from stream_scorer.callbacks.trace_headers import CONTACTS_HEADER, Untraced, contacts_of
from stream_scorer.core.callbacks.retry_policy import Completed, DeferReason, DeferredDelivery, Delivery
from stream_scorer.core.callbacks.selection import Selected
from stream_scorer.core.callbacks.types import Callback, CallbackOutcome, DeliveryAnswer, DeliveryKind, Score
from stream_scorer.core.records import Partition, SourceRecord
from stream_scorer.core.trace_context import TraceContext, context_of
from stream_scorer.telemetry.tracing.callbacks import DelivererTracer, PlannerTracer
from stream_scorer.telemetry.tracing.spans import Spans

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from stream_scorer.core.records import Headers

SAMPLED = TraceContext(0xA, 0xB, 1)
UNSAMPLED = TraceContext(0xC, 0xD, 0)
PLANNED = TraceContext(0x1, 0x2, 1)
HEADERS = [*PLANNED.headers, (CONTACTS_HEADER, b",".join((SAMPLED.traceparent.encode(), b"nonsense")))]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Spans:
    return Spans("stream-scorer-callbacks", "one", [SimpleSpanProcessor(exporter)])


def to_call(offset: int, headers: Headers) -> Selected:
    record = SourceRecord("scores", 0, offset, b"k", b"v", headers)
    return Selected(Score(record, "e", "c", None, "m", None, 0.9, 0.8, 0.95, 1, 2), b"{}")


def callback(*offsets: int) -> Callback:
    sources = tuple(f"scores/0/{offset}" for offset in offsets)
    return Callback("id-1", None, "webhook", b"{}", sources, ("e",), ("c",), 1_700_000_000_000, 1, 0)


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def deliverer(spans: Spans) -> DelivererTracer:
    return DelivererTracer(spans, topic="callbacks", group="g", url="https://manager.example.com/")


def job_of(headers: Headers) -> Delivery:
    return Delivery(SourceRecord("callbacks", 0, 5, b"k", b"v", headers), callback(1))


def ended(delivery: Delivery) -> Completed:
    return Completed(delivery.record, delivery.callback, CallbackOutcome.DELIVERED, 1_700_000_001_000, 200, 5.0, "")


DELIVERED = DeliveryAnswer(DeliveryKind.DELIVERED, "HTTP 200", 200, 5.0)
LATER = DeliveryAnswer(DeliveryKind.TRY_LATER, "time-out", None, 5.0)


class TestPlanning:
    def test_a_callback_links_its_sampled_contacts_and_names_them(
        self, spans: Spans, exporter: InMemorySpanExporter
    ) -> None:
        tracer = PlannerTracer(spans, "callbacks", "receipts")
        examined = [to_call(1, SAMPLED.headers), to_call(2, UNSAMPLED.headers), to_call(3, []), to_call(4, [])]
        headers = tracer.planning([callback(1, 2, 3)], examined)["id-1"]
        tracer.planned(committed=True)
        [send] = named(exporter, "send callbacks")
        own = context_of(headers)
        assert own is not None
        assert (own.trace_id, own.span_id) == (send.context.trace_id, send.context.span_id)
        assert [link.context.trace_id for link in send.links] == [SAMPLED.trace_id]
        assert dict(headers)[CONTACTS_HEADER] == SAMPLED.traceparent.encode()

    def test_without_a_sampled_contact_there_is_no_span(self, spans: Spans, exporter: InMemorySpanExporter) -> None:
        tracer = PlannerTracer(spans, "callbacks", "receipts")
        headers = tracer.planning([callback(2)], [to_call(2, UNSAMPLED.headers)])
        tracer.planned(committed=True)
        assert headers == {"id-1": UNSAMPLED.headers}
        assert tracer.planning([callback(3)], [to_call(3, [])]) == {}
        assert not exporter.get_finished_spans()

    def test_a_receipt_of_what_has_expired_is_in_a_trace_and_ends_those_of_its_contacts(
        self, spans: Spans, exporter: InMemorySpanExporter
    ) -> None:
        tracer = PlannerTracer(spans, "callbacks", "receipts")
        examined = [to_call(1, SAMPLED.headers), to_call(2, UNSAMPLED.headers)]
        headers = tracer.expiring([callback(1, 2)], examined)["id-1"]
        tracer.planned(committed=True)
        [send] = named(exporter, "send receipts")
        [called] = named(exporter, "callback")
        own = context_of(headers)
        assert own is not None
        assert (own.trace_id, own.span_id) == (send.context.trace_id, send.context.span_id)
        assert [name for name, _ in headers] == ["traceparent"]
        assert [link.context.trace_id for link in send.links] == [SAMPLED.trace_id]
        assert called.parent is not None
        assert (called.context.trace_id, called.parent.span_id) == (SAMPLED.trace_id, SAMPLED.span_id)
        assert (called.attributes or {})["stream_scorer.outcome"] == "expired"
        assert tracer.expiring([callback(2)], examined) == {"id-1": UNSAMPLED.headers}
        assert tracer.expiring([callback(3)], examined) == {}

    def test_untraced_a_receipt_of_what_has_expired_has_the_context_that_came(self) -> None:
        examined = [to_call(1, UNSAMPLED.headers), to_call(2, SAMPLED.headers)]
        assert Untraced().expiring([callback(1, 2)], examined) == {"id-1": SAMPLED.headers}
        assert Untraced().expiring([callback(3)], examined) == {}

    def test_untraced_hands_on_what_came(self) -> None:
        examined = [to_call(1, UNSAMPLED.headers), to_call(2, SAMPLED.headers)]
        headers = Untraced().planning([callback(1, 2)], examined)["id-1"]
        assert context_of(headers) == SAMPLED
        assert dict(headers)[CONTACTS_HEADER] == SAMPLED.traceparent.encode()
        assert Untraced().planning([callback(3)], examined) == {}


class TestDelivery:
    def test_a_contacts_trace_ends_with_its_callback(self, spans: Spans, exporter: InMemorySpanExporter) -> None:
        tracer, delivery = deliverer(spans), job_of(HEADERS)
        first = tracer.attempting(delivery)
        tracer.attempted(first, LATER)
        second = tracer.attempting(delivery)
        tracer.attempted(second, DELIVERED)
        tracer.committed([ended(delivery)])
        failed, sent = named(exporter, "POST")
        [process] = named(exporter, "process callbacks")
        [called] = named(exporter, "callback")
        assert process.parent is not None
        assert (process.context.trace_id, process.parent.span_id) == (0x1, 0x2)
        assert {failed.context.trace_id, sent.context.trace_id} == {0x1}
        assert first.traceparent == f"00-{1:032x}-{failed.context.span_id:016x}-01"
        assert second.traceparent == f"00-{1:032x}-{sent.context.span_id:016x}-01"
        assert called.parent is not None
        assert (called.context.trace_id, called.parent.span_id) == (SAMPLED.trace_id, SAMPLED.span_id)
        assert [link.context.span_id for link in called.links] == [process.context.span_id]
        assert (failed.attributes or {})["error.type"] == "try_later"
        assert (process.attributes or {})["stream_scorer.outcome"] == "delivered"

    def test_a_tier_hands_its_contacts_on(self, spans: Spans, exporter: InMemorySpanExporter) -> None:
        tracer, delivery = deliverer(spans), job_of(HEADERS)
        tracer.attempted(tracer.attempting(delivery), LATER)
        tracer.committed([DeferredDelivery(delivery.record, delivery.callback, 1, 1, DeferReason.RETRY)])
        [process] = named(exporter, "process callbacks")
        assert (process.attributes or {})["stream_scorer.outcome"] == "postponed"
        assert not named(exporter, "callback")
        assert contacts_of(delivery.record) == [SAMPLED]

    @pytest.mark.parametrize("headers", [[], UNSAMPLED.headers, [(CONTACTS_HEADER, b"nonsense")]])
    def test_an_unsampled_callback_has_no_span(
        self, spans: Spans, exporter: InMemorySpanExporter, headers: Headers
    ) -> None:
        tracer, delivery = deliverer(spans), job_of(headers)
        sent: Any = tracer.attempting(delivery)
        tracer.attempted(sent, DELIVERED)
        tracer.committed([ended(delivery)])
        assert sent.traceparent == (UNSAMPLED.traceparent if headers == UNSAMPLED.headers else None)
        assert not exporter.get_finished_spans()
        assert Untraced().attempting(delivery).traceparent == sent.traceparent

    def test_what_goes_elsewhere_is_ended(self, spans: Spans, exporter: InMemorySpanExporter) -> None:
        tracer, delivery = deliverer(spans), job_of(HEADERS)
        tracer.attempting(delivery)
        tracer.revoked([Partition("callbacks", 0)])
        tracer.attempted(delivery, DELIVERED)
        assert [span.name for span in exporter.get_finished_spans()] == ["POST", "process callbacks"]
        assert not tracer._deliveries
