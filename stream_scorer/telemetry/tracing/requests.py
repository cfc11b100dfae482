"""Traces of the requests to the scoring API: ``process`` for a batch, with one ``POST`` child an HTTP attempt."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from stream_scorer.core.http_failure import HttpFailure
from stream_scorer.telemetry.tracing.attributes import (
    BATCH_ID,
    CORRELATION_ID,
    OUTCOME,
    HttpAttributes,
    end_request,
    operation,
)
from stream_scorer.telemetry.tracing.spans import SpanKind, add_link, context_of_span, end_span, from_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stream_scorer.core.records import SourceRecord
    from stream_scorer.core.scoring.api_response import ApiResponse, Exchange
    from stream_scorer.core.scoring.request import Request
    from stream_scorer.telemetry.tracing.spans import Span, Spans

# Limit on requests that never finish here: their partitions were revoked while they waited for a retry.
_MAX_OPEN: Final = 256


class _OpenRequest:
    """Open span of a request with sampled contacts, and the number of its HTTP attempts."""

    __slots__ = ("attempts", "span")

    def __init__(self, span: Span) -> None:
        self.span = span
        self.attempts = 0


class RequestSpans:
    """Tracer of requests to the scoring API. Owned by the worker's thread.

    Args:
        spans: creates spans.
        topic: the features topic.
        group: the consumer group.
        api_url: URL of the score endpoint.
        login_url: URL of the token endpoint.
        processes: returns the ``process`` spans of a request's sampled contacts.
    """

    def __init__(
        self,
        spans: Spans,
        *,
        topic: str,
        group: str,
        api_url: str,
        login_url: str,
        processes: Callable[[Iterable[SourceRecord]], list[Span]],
    ) -> None:
        self._spans = spans
        self._topic = topic
        self._group = group
        self._api = HttpAttributes(api_url)
        self._login = HttpAttributes(login_url)
        self._processes = processes
        self._open: OrderedDict[str, _OpenRequest] = OrderedDict()

    def response_received(self, request: Request, answer: ApiResponse) -> str | None:
        """Record the span of a completed attempt; see ``scoring.ports.Trace``."""
        entry = self._open.get(request.batch_id) or self._begin(request)
        if entry is None:
            return None
        trouble = getattr(answer, "failure", None)
        if answer.exchange.earlier is not None:
            self._attempted(entry, answer.exchange.earlier, self._api, None)
        self._attempted(entry, answer.exchange, self._login if trouble is HttpFailure.NO_TOKEN else self._api, trouble)
        return f"{context_of_span(entry.span).trace_id:032x}"

    def request_finished(self, request: Request) -> None:
        """End a request's span."""
        entry = self._open.pop(request.batch_id, None)
        if entry is not None:
            end_span(entry.span)

    def close(self) -> None:
        """End the spans of unfinished requests."""
        for entry in self._open.values():
            end_span(entry.span, {OUTCOME: "given up"})

    def _begin(self, request: Request) -> _OpenRequest | None:
        processes = self._processes(contact.record for contact in request.contacts)
        if not processes:
            return None
        attributes = operation("process", "process", self._topic, group=self._group, count=len(request.contacts))
        attributes[BATCH_ID] = request.batch_id
        began_ns = None if request.first_sent_ms is None else from_ms(request.first_sent_ms)
        links = [context_of_span(process) for process in processes]
        span = self._spans.root(f"process {self._topic}", SpanKind.CONSUMER, attributes, links, start_ns=began_ns)
        batch = context_of_span(span)
        for process in processes:
            add_link(process, batch)
        entry = self._open[request.batch_id] = _OpenRequest(span)
        if len(self._open) > _MAX_OPEN:
            end_span(self._open.popitem(last=False)[1].span, {OUTCOME: "given up"})
        return entry

    def _attempted(self, entry: _OpenRequest, exchange: Exchange, place: HttpAttributes, trouble: str | None) -> None:
        began_ns = from_ms(exchange.started_at_ms)
        span = self._spans.child(
            "POST", SpanKind.CLIENT, place.request(entry.attempts), of=entry.span, start_ns=began_ns
        )
        entry.attempts += 1
        if exchange.correlation_id is not None:
            span.set_attribute(CORRELATION_ID, exchange.correlation_id)
        end_request(span, exchange.status, trouble, end_ns=began_ns + from_ms(exchange.latency_ms))
