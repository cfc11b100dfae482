"""First span of a contact's trace: the span of the producer that sent it to the features topic."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from stream_scorer.telemetry.tracing.attributes import operation
from stream_scorer.telemetry.tracing.spans import SpanKind, context_of_span, end_span, unsampled

if TYPE_CHECKING:
    from stream_scorer.kafka.producer.bulk_producer import Sending
    from stream_scorer.telemetry.tracing.spans import Span, Spans


class ProducerTracer:
    """Tracer of the producer: one span a record; see ``kafka.producer.bulk_producer.Trace``.

    Args:
        spans: creates spans.
        topic: the topic of the records.
    """

    def __init__(self, spans: Spans, topic: str) -> None:
        self._spans = spans
        self._name = f"produce {topic}"
        self._attributes = operation("produce", "send", topic)

    def sending(self) -> Sending:
        """Start the trace of a record; the sampler decides whether it is recorded."""
        wanted = self._spans.wants_root(self._name)
        span = self._spans.start(self._name, SpanKind.PRODUCER, self._attributes) if wanted else None
        if span is None:
            return unsampled().headers, _nothing
        return context_of_span(span).headers, partial(_ended, span)

    def close(self) -> None:
        """Export the buffered spans."""
        self._spans.close()


def _ended(span: Span, delivered: bool) -> None:
    end_span(span, error=None if delivered else "not delivered")


def _nothing(_delivered: bool) -> None:
    pass
