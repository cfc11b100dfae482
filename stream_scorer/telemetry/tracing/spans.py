"""Span factory: the only module that uses OpenTelemetry's tracing SDK for spans.

A span exists only if it is recorded: an unsampled contact costs the parsing of one header or one sampling decision.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.sdk.trace.sampling import Decision, ParentBased
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from stream_scorer import __version__
from stream_scorer.core.trace_context import TraceContext
from stream_scorer.telemetry.collectors import close_within_limit, rate_limit_logs
from stream_scorer.telemetry.otel_env import ALL_TRACES
from stream_scorer.telemetry.tracing.sampler import WANTED, OrRequestedSampler, TraceIdGenerator, make_sampler

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.util.types import Attributes, AttributeValue

    from stream_scorer.telemetry.otel_env import Sampling, TraceValues

__all__ = ["Span", "SpanKind", "Spans", "add_link", "context_of_span", "end_span", "make_spans"]

# A batch links every sampled contact, a commit up to 16,000; the SDK keeps 128 links by default.
_MAX_LINKS: Final = 20_000
_EXPORTER_LOGS: Final = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)
_NANOSECONDS: Final = 1_000_000


class Spans:
    """Span factory of one service.

    Args:
        service: the resource's ``service.name``, unless ``OTEL_SERVICE_NAME`` or ``OTEL_RESOURCE_ATTRIBUTES`` set it.
        instance: the resource's ``service.instance.id``.
        processors: receive ended spans.
        sampling: which traces are recorded.

    Attributes:
        asks_the_parent: whether children of an unsampled span are never sampled.
    """

    def __init__(
        self, service: str, instance: str, processors: Iterable[SpanProcessor], sampling: Sampling = ALL_TRACES
    ) -> None:
        named = Resource(
            {"service.name": service, "service.version": __version__, "service.instance.id": instance},
        )
        self._sampler = make_sampler(sampling)
        self.asks_the_parent = isinstance(self._sampler, ParentBased)
        self._ids = TraceIdGenerator()
        self._provider = TracerProvider(
            sampler=OrRequestedSampler(self._sampler),
            resource=named.merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
            id_generator=self._ids,
            span_limits=SpanLimits(max_links=_MAX_LINKS, max_span_attributes=64),
        )
        for processor in processors:
            self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("stream_scorer", __version__)

    def wants_root(self, name: str) -> bool:
        """Return the sampling decision for a new trace; the next `start` of a root in this thread applies it."""
        return self._sampler.should_sample(None, self._ids.next_trace_id(), name).decision is Decision.RECORD_AND_SAMPLE

    def start(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, AttributeValue],
        *,
        parent: TraceContext | None = None,
    ) -> Span | None:
        """Start a span below a parent, or a root for which `wants_root` has returned True; None: not sampled."""
        below = Context() if parent is None else _below(parent)
        span = self._tracer.start_span(name, below, kind, attributes)
        return span if span.is_recording() else None

    def root(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, AttributeValue],
        links: Collection[TraceContext],
        *,
        start_ns: int | None = None,
    ) -> Span:
        """Start a new trace, which is always recorded because the spans it links are."""
        self._ids.next_trace_id()
        linked = [Link(_span_context(link)) for link in links]
        return self._tracer.start_span(name, WANTED, kind, attributes, linked, start_time=start_ns)

    def child(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, AttributeValue],
        *,
        of: Span | TraceContext,
        start_ns: int | None = None,
    ) -> Span:
        """Start a span below a recorded one; it is always recorded."""
        parent = NonRecordingSpan(_span_context(of)) if isinstance(of, TraceContext) else of
        below = set_span_in_context(parent, WANTED)
        return self._tracer.start_span(name, below, kind, attributes, start_time=start_ns)

    def close(self) -> None:
        """Export buffered spans, within `telemetry.collectors.CLOSE_S`."""
        close_within_limit(self._provider.shutdown)


def make_spans(values: TraceValues, service: str, instance: str) -> Spans:
    """Return the span factory of a service, with the exporters that the variables configure."""
    processors = []
    if "otlp" in values.exporters:
        # Imported here, since a service with the console exporter alone does not need it.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

        processors.append(_processor(OTLPSpanExporter(), values))
        rate_limit_logs(_EXPORTER_LOGS)
    if "console" in values.exporters:
        processors.append(_processor(ConsoleSpanExporter(), values))
    return Spans(service, instance, processors, values.sampling)


def _processor(exporter: SpanExporter, values: TraceValues) -> SpanProcessor:
    # All arguments are given: the SDK logs a traceback for a variable that it cannot parse. It ignores the last one.
    return BatchSpanProcessor(exporter, values.queue, values.delay_ms, values.batch, 30_000)


def context_of_span(span: Span) -> TraceContext:
    """Return the trace context for the headers of a record below this span."""
    context = span.get_span_context()
    return TraceContext(context.trace_id, context.span_id, context.trace_flags, context.trace_state.to_header())


def unsampled() -> TraceContext:
    """Return the context of a new unsampled trace, which keeps downstream services from starting a sampled one."""
    return TraceContext(random.getrandbits(128) or 1, random.getrandbits(64) or 1, 0)  # nosec B311


def add_link(span: Span, to: TraceContext) -> None:
    """Link a span to another trace."""
    span.add_link(_span_context(to))


def end_span(span: Span, attributes: Attributes = None, *, error: str | None = None, end_ns: int | None = None) -> None:
    """End a span; ``error`` describes the failure in a word or a line without secrets."""
    if attributes:
        span.set_attributes(attributes)
    if error is not None:
        span.set_status(Status(StatusCode.ERROR, error))
    span.end(end_ns)


def now_ns() -> int:
    """Return the time in Unix nanoseconds."""
    return time.time_ns()


def from_ms(unix_ms: float) -> int:
    """Convert Unix milliseconds to Unix nanoseconds."""
    return int(unix_ms * _NANOSECONDS)


def _span_context(context: TraceContext) -> SpanContext:
    state = TraceState.from_header([context.state]) if context.state else None
    return SpanContext(context.trace_id, context.span_id, True, TraceFlags(context.flags), state)


def _below(parent: TraceContext) -> Context:
    return set_span_in_context(NonRecordingSpan(_span_context(parent)), Context())
