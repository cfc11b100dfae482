"""Makes spans. The one seam to OpenTelemetry's tracing SDK.

A span exists only where it is recorded: what nobody samples costs a look at a header, or a throw of the dice.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from typing import TYPE_CHECKING, Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
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
    get_current_span,
    set_span_in_context,
)

from stream_scorer import __version__
from stream_scorer.core.trace_context import TraceContext
from stream_scorer.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.util.types import Attributes, AttributeValue

__all__ = ["Span", "SpanKind", "Spans", "add_link", "context_of_span", "end_span", "make_spans"]

# A batch links every sampled contact, a commit up to 16,000: more than the 128 links that are kept by default.
_MAX_LINKS: Final = 20_000
# A commit ends two spans for each of its contacts at once, and the SDK drops what its queue of 2,048 does not hold.
_MAX_QUEUE: Final = 65_536
_CLOSE_S: Final = 3.0
_QUIET_S: Final = 60.0
_EXPORTER_LOGS: Final = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)
_NANOSECONDS: Final = 1_000_000
# What is recorded because it links, or is a part of, something that is: whatever the sampler says of it alone.
_WANTED_KEY: Final = "stream_scorer.wanted"
_WANTED: Final = Context({_WANTED_KEY: True})


class Spans:
    """Starts spans of one service.

    Args:
        service: the resource's ``service.name``, unless ``OTEL_SERVICE_NAME`` or ``OTEL_RESOURCE_ATTRIBUTES`` say else.
        instance: the resource's ``service.instance.id``.
        processors: where ended spans go.

    Attributes:
        asks_the_parent: whether what hangs below a span that is not sampled never is.
    """

    def __init__(self, service: str, instance: str, processors: Iterable[SpanProcessor]) -> None:
        named = Resource(
            {"service.name": service, "service.version": __version__, "service.instance.id": instance},
        )
        # Made without a sampler, a provider takes the one that OTEL_TRACES_SAMPLER asks for.
        sampler = TracerProvider(shutdown_on_exit=False).sampler
        self._sampler = sampler
        self.asks_the_parent = isinstance(sampler, ParentBased)
        self._ids = _Ids()
        self._provider = TracerProvider(
            sampler=_WantedToo(sampler),
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
        return self._tracer.start_span(name, _WANTED, kind, attributes, linked, start_time=start_ns)

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
        below = set_span_in_context(parent, _WANTED)
        return self._tracer.start_span(name, below, kind, attributes, start_time=start_ns)

    def close(self) -> None:
        """Send what is left, within a few seconds: a collector that is away must not hold up an end."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces-closing", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)


def make_spans(exporters: Collection[str], service: str, instance: str) -> Spans:
    """Build from what `stream_scorer.tracing.environment.trace_exporters` says.

    Raises:
        SettingsError: the SDK does not take what a variable says.
    """
    try:
        return Spans(service, instance, _processors(exporters))
    except ValueError as error:
        raise SettingsError(f"an OTEL_* variable: {error}") from None


def _processors(exporters: Collection[str]) -> list[SpanProcessor]:
    queue = None if os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") else _MAX_QUEUE
    processors: list[SpanProcessor] = []
    if "otlp" in exporters:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - only where it is asked for
            OTLPSpanExporter,
        )

        processors.append(BatchSpanProcessor(OTLPSpanExporter(), queue))
        for name in _EXPORTER_LOGS:
            logging.getLogger(name).addFilter(_Thinned())
    if "console" in exporters:
        processors.append(BatchSpanProcessor(ConsoleSpanExporter(), queue))
    return processors


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


class _Ids(RandomIdGenerator):
    """Gives a root the trace id that its thread has asked about."""

    def __init__(self) -> None:
        self._own = threading.local()

    def next_trace_id(self) -> int:
        """Choose the id of the next root."""
        self._own.trace_id = random.getrandbits(128) or 1  # nosec B311
        return int(self._own.trace_id)

    def generate_trace_id(self) -> int:
        chosen = getattr(self._own, "trace_id", 0)
        self._own.trace_id = 0  # for one root
        return int(chosen or random.getrandbits(128) or 1)  # nosec B311


class _WantedToo(Sampler):
    """Samples what is wanted; asks another sampler about everything else."""

    def __init__(self, other: Sampler) -> None:
        self._other = other

    def should_sample(  # noqa: PLR0917 - the SDK's
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        if parent_context is not None and _WANTED_KEY in parent_context:
            state = get_current_span(parent_context).get_span_context().trace_state
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, state)
        return self._other.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return f"stream_scorer,{self._other.get_description()}"


class _Thinned(logging.Filter):
    """Lets one line a minute through: a collector that is away is no news every few seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._quiet_until = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.created < self._quiet_until:
            return False
        self._quiet_until = record.created + _QUIET_S
        record.exc_info = None  # a traceback of the network says no more than its last line
        return True


def _span_context(context: TraceContext) -> SpanContext:
    state = TraceState.from_header([context.state]) if context.state else None
    return SpanContext(context.trace_id, context.span_id, True, TraceFlags(context.flags), state)


def _below(parent: TraceContext) -> Context:
    return set_span_in_context(NonRecordingSpan(_span_context(parent)), Context())
