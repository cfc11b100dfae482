"""Sampler of spans, and generator of trace ids."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import get_current_span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.trace import Link, SpanKind, TraceState
    from opentelemetry.util.types import Attributes

    from stream_scorer.telemetry.otel_env import Sampling

# Context key for spans that link a recorded span or are a part of one: recorded whatever the sampler decides.
_WANTED_KEY: Final = "stream_scorer.wanted"
WANTED: Final = Context({_WANTED_KEY: True})


def make_sampler(sampling: Sampling) -> Sampler:
    """Return the sampler that the variables configure."""
    kind = sampling.sampler.removeprefix("parentbased_")
    if kind == "traceidratio":
        root: Sampler = TraceIdRatioBased(sampling.ratio)
    else:
        root = ALWAYS_ON if kind == "always_on" else ALWAYS_OFF
    return root if kind == sampling.sampler else ParentBased(root)


class TraceIdGenerator(RandomIdGenerator):
    """Trace id generator that gives a root the id for which its thread has evaluated the sampler."""

    def __init__(self) -> None:
        self._own = threading.local()

    def next_trace_id(self) -> int:
        """Choose the id of the thread's next root."""
        self._own.trace_id = random.getrandbits(128) or 1  # nosec B311
        return int(self._own.trace_id)

    def generate_trace_id(self) -> int:
        """Return the chosen id, once; without one, a random id."""
        chosen = getattr(self._own, "trace_id", 0)
        self._own.trace_id = 0  # for one root
        return int(chosen or random.getrandbits(128) or 1)  # nosec B311


class OrRequestedSampler(Sampler):
    """Sampler that records requested spans, and applies another sampler to all others."""

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
        """Return whether a span is recorded."""
        if parent_context is not None and _WANTED_KEY in parent_context:
            state = get_current_span(parent_context).get_span_context().trace_state
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, state)
        return self._other.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Return the sampler's name for the SDK."""
        return f"stream_scorer,{self._other.get_description()}"
