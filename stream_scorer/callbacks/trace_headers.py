"""Trace context of callbacks: from its scores, through its record, to the receiver.

A callback has several contacts, so its record has two headers. ``traceparent`` is the context of the callback itself;
``stream-scorer-traceparents`` has the contexts of its sampled contacts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from stream_scorer.core.callbacks.selection import Selected
from stream_scorer.core.trace_context import context_of, link_parents, split_links
from stream_scorer.kafka.producer.dead_letter import forwarded_headers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_scorer.core.callbacks.retry_policy import Delivery, DeliveryOutcome
    from stream_scorer.core.callbacks.selection import Examined
    from stream_scorer.core.callbacks.types import Callback, DeliveryAnswer
    from stream_scorer.core.records import Headers, Partition, SourceRecord
    from stream_scorer.core.trace_context import TraceContext

CONTACTS_HEADER: Final = "stream-scorer-traceparents"
_MAX_CONTACTS: Final = 1_000


class PlannerTrace(Protocol):
    """See ``telemetry.tracing.callbacks.PlannerTracer``; `Untraced` is used if traces are off."""

    def planning(self, callbacks: Sequence[Callback], examined: Iterable[Examined]) -> Mapping[str, Headers]:
        """Return the headers of planned callbacks, by callback id."""

    def expiring(self, expired: Sequence[Callback], examined: Iterable[Examined]) -> Mapping[str, Headers]:
        """Return the headers of the receipts of expired callbacks, by callback id."""

    def planned(self, *, committed: bool) -> None:
        """Record the end of the transaction with these callbacks."""


class DelivererTrace(Protocol):
    """See ``telemetry.tracing.callbacks.DelivererTracer``."""

    def attempting(self, delivery: Delivery) -> Delivery:
        """Return the delivery with the ``traceparent`` of its request."""

    def attempted(self, delivery: Delivery, answer: DeliveryAnswer) -> None: ...

    def committed(self, outcomes: Iterable[DeliveryOutcome]) -> None: ...

    def revoked(self, partitions: Iterable[Partition]) -> None: ...


class Untraced:
    """Null `PlannerTrace` and `DelivererTrace`: no spans; contexts are propagated unchanged."""

    def planning(self, callbacks: Sequence[Callback], examined: Iterable[Examined]) -> Mapping[str, Headers]:
        """Return for each callback the first context of its contacts, sampled ones preferred."""
        return {
            callback_id: [*max(contexts, key=lambda context: context.sampled).headers, *contacts_header(contexts)]
            for callback_id, contexts in trace_contexts(callbacks, examined).items()
        }

    def expiring(self, expired: Sequence[Callback], examined: Iterable[Examined]) -> Mapping[str, Headers]:
        """Return the same context for each, as any receipt has it: expired callbacks are not delivered."""
        return {
            callback_id: forwarded_headers(headers) for callback_id, headers in self.planning(expired, examined).items()
        }

    def planned(self, *, committed: bool) -> None: ...

    def attempting(self, delivery: Delivery) -> Delivery:
        """Return the delivery with its record's own context."""
        context = context_of(delivery.record.headers)
        return delivery if context is None else delivery.under(context.traceparent)

    def attempted(self, delivery: Delivery, answer: DeliveryAnswer) -> None: ...

    def committed(self, outcomes: Iterable[DeliveryOutcome]) -> None: ...

    def revoked(self, partitions: Iterable[Partition]) -> None: ...


def trace_contexts(callbacks: Sequence[Callback], examined: Iterable[Examined]) -> dict[str, list[TraceContext]]:
    """Return the trace contexts of each callback's scores; callbacks without any are left out."""
    if not callbacks:
        return {}
    known = {}
    for one in examined:
        context = context_of(one.record.headers) if isinstance(one, Selected) else None
        if context is not None:
            known[one.record.source] = context
    if not known:
        return {}
    found = {
        callback.callback_id: [known[source] for source in callback.sources if source in known]
        for callback in callbacks
    }
    return {callback_id: contexts for callback_id, contexts in found.items() if contexts}


def contacts_header(contexts: Iterable[TraceContext]) -> Headers:
    """Return the header with the sampled contexts; no header if none is sampled."""
    sampled = [context for context in contexts if context.sampled]
    return [(CONTACTS_HEADER, link_parents(sampled))] if sampled else []


def contacts_of(record: SourceRecord) -> list[TraceContext]:
    """Return the contexts of a callback's sampled contacts from its record."""
    values = [value for name, value in record.headers if name == CONTACTS_HEADER and value]
    return split_links(values[0], _MAX_CONTACTS) if values else []


def within_limit(record: SourceRecord) -> Headers:
    """Return the contacts header, which the callback's next record repeats."""
    return [(name, value) for name, value in record.headers if name == CONTACTS_HEADER]
