"""The first span of a contact's trace: that of whoever put it on the features topic."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from stream_scorer.telemetry.tracing.attributes import operation
from stream_scorer.telemetry.tracing.spans import SpanKind, context_of_span, end_span, unsampled

if TYPE_CHECKING:
    from stream_scorer.kafka.producer.bulk_producer import Sending
    from stream_scorer.telemetry.tracing.spans import Span, Spans


class ProducerTracer:
    """Makes a span for each record; see ``kafka.producer.bulk_producer.Trace``.

    Args:
        spans: makes them.
        topic: where the records go.
    """

    def __init__(self, spans: Spans, topic: str) -> None:
        self._spans = spans
        self._name = f"produce {topic}"
        self._said = operation("produce", "send", topic)

    def sending(self) -> Sending:
        """Begin the trace of a record; the sampler decides whether anybody records it."""
        wanted = self._spans.wants_root(self._name)
        span = self._spans.start(self._name, SpanKind.PRODUCER, self._said) if wanted else None
        if span is None:
            return unsampled().headers, _nothing
        return context_of_span(span).headers, partial(_ended, span)

    def close(self) -> None:
        """Send what is left."""
        self._spans.close()


def _ended(span: Span, delivered: bool) -> None:
    end_span(span, error=None if delivered else "not delivered")


def _nothing(_delivered: bool) -> None:
    pass
