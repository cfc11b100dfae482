"""How traces go on through callbacks: from the scores that are in one, through its record, to those who take it.

A callback is about several contacts, so its record carries two headers. ``traceparent`` names the trace that the
callback itself belongs to; ``stream-scorer-traceparents`` those of its contacts that are sampled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from stream_scorer.core.callbacks.selection import Selected
from stream_scorer.core.trace_context import context_of, link_parents, split_links
from stream_scorer.kafka.producer.dead_letter import forwarded_headers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_scorer.core.callbacks.delivery_policy import Delivery, DeliveryOutcome
    from stream_scorer.core.callbacks.selection import Examined
    from stream_scorer.core.callbacks.types import Callback, DeliveryAnswer
    from stream_scorer.core.records import Headers, Partition, SourceRecord
    from stream_scorer.core.trace_context import TraceContext

CONTACTS_HEADER: Final = "stream-scorer-traceparents"
_MAX_CONTACTS: Final = 1_000


class PlannerTrace(Protocol):
    """See ``telemetry.tracing.callbacks.PlannerTracer``; `Untraced` is used if traces are off."""

    def planning(self, callbacks: Sequence[Callback], examined: Iterable[Examined]) -> Mapping[str, Headers]:
        """Returns the headers of planned callbacks, by their ids."""

    def expiring(self, expired: Sequence[Callback], examined: Iterable[Examined]) -> Mapping[str, Headers]:
        """Returns the headers of the receipts of callbacks that have expired before they were any, by their ids."""

    def planned(self, *, committed: bool) -> None:
        """The transaction with these callbacks has ended."""


class DelivererTrace(Protocol):
    """See ``telemetry.tracing.callbacks.DelivererTracer``."""

    def attempting(self, delivery: Delivery) -> Delivery:
        """Return the delivery with the ``traceparent`` of its request."""

    def attempted(self, delivery: Delivery, answer: DeliveryAnswer) -> None:
        """An attempt has ended."""

    def committing(self, outcomes: Sequence[DeliveryOutcome]) -> None:
        """A transaction with what became of these callbacks is about to begin."""

    def committed(self, outcomes: Iterable[DeliveryOutcome]) -> None:
        """What became of callbacks is committed."""

    def commit_resolved(self, offsets: Mapping[Partition, int]) -> None:
        """It was not known whether the last transaction was committed; these offsets are."""

    def revoked(self, partitions: Iterable[Partition]) -> None:
        """Discard the spans of revoked partitions."""


class Untraced:
    """Both, where no span is made: contexts are handed on as they came."""

    def planning(self, callbacks: Sequence[Callback], examined: Iterable[Examined]) -> Mapping[str, Headers]:
        """Returns for each callback the first of its contacts' contexts, a sampled one before others."""
        return {
            callback_id: [*max(contexts, key=lambda context: context.sampled).headers, *contacts_header(contexts)]
            for callback_id, contexts in trace_contexts(callbacks, examined).items()
        }

    def expiring(self, expired: Sequence[Callback], examined: Iterable[Examined]) -> Mapping[str, Headers]:
        """Return the same context for each, as any receipt has it: expired callbacks are not delivered."""
        return {
            callback_id: forwarded_headers(headers) for callback_id, headers in self.planning(expired, examined).items()
        }

    def planned(self, *, committed: bool) -> None:
        """Do nothing."""

    def attempting(self, delivery: Delivery) -> Delivery:
        """Return the delivery with its record's own context."""
        context = context_of(delivery.record.headers)
        return delivery if context is None else delivery.under(context.traceparent)

    def attempted(self, delivery: Delivery, answer: DeliveryAnswer) -> None:
        """Do nothing."""

    def committing(self, outcomes: Sequence[DeliveryOutcome]) -> None:
        """Do nothing."""

    def committed(self, outcomes: Iterable[DeliveryOutcome]) -> None:
        """Do nothing."""

    def commit_resolved(self, offsets: Mapping[Partition, int]) -> None:
        """Do nothing."""

    def revoked(self, partitions: Iterable[Partition]) -> None:
        """Do nothing."""


def trace_contexts(callbacks: Sequence[Callback], examined: Iterable[Examined]) -> dict[str, list[TraceContext]]:
    """Return the contexts that the scores of each callback came with; callbacks without any are left out."""
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
    """Return the header that names the sampled ones of these contexts; none where there is none."""
    sampled = [context for context in contexts if context.sampled]
    return [(CONTACTS_HEADER, link_parents(sampled))] if sampled else []


def contacts_of(record: SourceRecord) -> list[TraceContext]:
    """Return the contexts of the sampled contacts of a callback, as its record names them."""
    values = [value for name, value in record.headers if name == CONTACTS_HEADER and value]
    return split_links(values[0], _MAX_CONTACTS) if values else []


def within_limit(record: SourceRecord) -> Headers:
    """Return the header that the callback's next record has to carry as well."""
    return [(name, value) for name, value in record.headers if name == CONTACTS_HEADER]
