"""Makes spans. The one seam to OpenTelemetry's tracing SDK.

A span exists only where it is recorded: what nobody samples costs a look at a header, or a throw of the dice.
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

# A batch links every sampled contact, a commit up to 16,000: more than the 128 links that are kept by default.
_MAX_LINKS: Final = 20_000
_EXPORTER_LOGS: Final = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)
_NANOSECONDS: Final = 1_000_000


class Spans:
    """Starts spans of one service.

    Args:
        service: the resource's ``service.name``, unless ``OTEL_SERVICE_NAME`` or ``OTEL_RESOURCE_ATTRIBUTES`` say else.
        instance: the resource's ``service.instance.id``.
        processors: where ended spans go.
        sampling: which traces are recorded.

    Attributes:
        asks_the_parent: whether what hangs below a span that is not sampled never is.
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
        """Throw the dice for a trace that would begin here; `start` goes by what they say."""
        return self._sampler.should_sample(None, self._ids.next_trace_id(), name).decision is Decision.RECORD_AND_SAMPLE

    def start(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, AttributeValue],
        *,
        parent: TraceContext | None = None,
    ) -> Span | None:
        """Start a span below a parent, or as the root that `wants_root` has just said yes to; None: not sampled."""
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
        """Start a trace of its own, which is recorded because all that it links is."""
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
        """Start a span below one that is recorded; what is recorded is so with all its parts."""
        parent = NonRecordingSpan(_span_context(of)) if isinstance(of, TraceContext) else of
        below = set_span_in_context(parent, WANTED)
        return self._tracer.start_span(name, below, kind, attributes, start_time=start_ns)

    def close(self) -> None:
        """Send what is left, within `telemetry.collectors.CLOSE_S`."""
        close_within_limit(self._provider.shutdown)


def make_spans(values: TraceValues, service: str, instance: str) -> Spans:
    """Build what makes the spans of a service, as the variables ask for it."""
    processors = []
    if "otlp" in values.exporters:
        # Here, since a service that only shows its spans need not load it.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

        processors.append(_processor(OTLPSpanExporter(), values))
        rate_limit_logs(_EXPORTER_LOGS)
    if "console" in values.exporters:
        processors.append(_processor(ConsoleSpanExporter(), values))
    return Spans(service, instance, processors, values.sampling)


def _processor(exporter: SpanExporter, values: TraceValues) -> SpanProcessor:
    # All are given: what the SDK cannot read in its variables it tells with a traceback. The last is not used by it.
    return BatchSpanProcessor(exporter, values.queue, values.delay_ms, values.batch, 30_000)


def context_of_span(span: Span) -> TraceContext:
    """Return what the headers of a record below this span say."""
    context = span.get_span_context()
    return TraceContext(context.trace_id, context.span_id, context.trace_flags, context.trace_state.to_header())


def unsampled() -> TraceContext:
    """Return a new trace that nobody records, so that those who read on do not begin one either."""
    return TraceContext(random.getrandbits(128) or 1, random.getrandbits(64) or 1, 0)  # nosec B311


def add_link(span: Span, to: TraceContext) -> None:
    """Link a span to another trace."""
    span.add_link(_span_context(to))


def end_span(span: Span, attributes: Attributes = None, *, error: str | None = None, end_ns: int | None = None) -> None:
    """End a span; ``error``: what went wrong, in a word or a line without secrets."""
    if attributes:
        span.set_attributes(attributes)
    if error is not None:
        span.set_status(Status(StatusCode.ERROR, error))
    span.end(end_ns)


def now_ns() -> int:
    """Unix nanoseconds."""
    return time.time_ns()


def from_ms(unix_ms: float) -> int:
    """Unix nanoseconds of Unix milliseconds."""
    return int(unix_ms * _NANOSECONDS)


def _span_context(context: TraceContext) -> SpanContext:
    state = TraceState.from_header([context.state]) if context.state else None
    return SpanContext(context.trace_id, context.span_id, True, TraceFlags(context.flags), state)


def _below(parent: TraceContext) -> Context:
    return set_span_in_context(NonRecordingSpan(_span_context(parent)), Context())
