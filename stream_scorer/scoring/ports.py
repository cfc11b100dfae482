"""Protocols of the scoring service's collaborators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from stream_scorer.core.exactly_once.offset_ledger import OffsetLedger
from stream_scorer.core.records import Outcome, Skipped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_scorer.core.exactly_once.stall_detector import ConsumerLag
    from stream_scorer.core.records import ApiResponse, Headers, Partition, RateLimitHeaders, SourceRecord
    from stream_scorer.core.scoring.request import Request

OutcomeLedger: TypeAlias = OffsetLedger[Outcome | Skipped]
"""Ledger of the scoring worker: a record is scored, rejected, deferred or skipped."""


class Pool(Protocol):
    """See ``runtime.worker_pool.WorkerPool``."""

    size: int

    def submit(self, request: Request) -> None:
        """Start an attempt."""

    def answers(self, wait_s: float = 0.0) -> list[tuple[Request, ApiResponse]]:
        """Return the attempts that have ended."""


class Quota(Protocol):
    """See ``genesys.quota.Quota``. Times are monotonic seconds."""

    def wait_s(self, now: float) -> float:
        """Return the seconds until a request may be sent."""

    def reason(self, now: float) -> str | None:
        """Return why no request may be sent now; None: one may."""

    def may_send_partial_batch(self, now: float, batches: int = 1) -> bool:
        """Return whether a partial batch is worth a request now; ``batches``: number of open batches."""

    def sent_partial_batch(self, now: float) -> None:
        """Record that a partial batch was taken."""

    def remaining(self, now: float) -> int:
        """Return the number of requests that may be sent now at once."""

    def allowed(self) -> int:
        """Return the number of requests per window."""

    def exhausted_in_s(self, now: float) -> float:
        """Return the seconds until the quota is used up at the present rate."""

    def sent(self, now: float) -> None:
        """Record a sent request."""

    def update(self, reading: RateLimitHeaders, now: float) -> None:
        """Record a response with quota headers."""

    def answered(self) -> None:
        """Record a response without quota headers, or a request without a response."""

    def block_until(self, until: float) -> None:
        """Send nothing before this time, as the API demands."""


class Trace(Protocol):
    """See ``telemetry.tracing.scoring.ScoringTracer``; ``Untraced`` is used if traces are off."""

    def polling(self) -> None:
        """Record the start of a poll."""

    def polled(self, records: Sequence[SourceRecord]) -> None:
        """Record the records of a poll that were added to the ledger."""

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Discard the spans of revoked partitions."""

    def response_received(self, request: Request, answer: ApiResponse) -> str | None:
        """Record the end of an attempt. Return its trace id, 32 hexadecimal digits; None if it is not traced."""

    def request_finished(self, request: Request) -> None:
        """Record that a request will not be sent again."""

    def sending(self, record: SourceRecord, topic: str, headers: Headers) -> Headers:
        """Return the headers of an output record, with the trace context of its source record."""

    def committing(self) -> None:
        """Record the start of a transaction."""

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """Record the commit of these outcomes."""

    def close(self) -> None:
        """Export the remaining spans."""


class Untraced:
    """Null ``Trace``: no spans, headers unchanged."""

    def polling(self) -> None:
        """Do nothing."""

    def polled(self, records: Sequence[SourceRecord]) -> None:
        """Do nothing."""

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Do nothing."""

    def response_received(self, request: Request, answer: ApiResponse) -> None:
        """Do nothing."""

    def request_finished(self, request: Request) -> None:
        """Do nothing."""

    def sending(self, record: SourceRecord, topic: str, headers: Headers) -> Headers:
        """Return the headers unchanged."""
        del record, topic
        return headers

    def committing(self) -> None:
        """Do nothing."""

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Log(Protocol):
    """The methods of a structlog logger that are used here."""

    def info(self, event: str, **fields: Any) -> Any:
        """Log an event of normal operation."""

    def error(self, event: str, **fields: Any) -> Any:
        """Log an event that an operator must act on."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Log an event that an operator may want to examine."""

    def debug(self, event: str, **fields: Any) -> Any:
        """Log at level debug, for the search for one contact."""


class Metrics(Protocol):
    """See ``telemetry.metrics.scoring.Metrics``. Amounts are sums."""

    def consumed(self, records: int, *, poll_s: float) -> None:
        """Count the records that one poll read from the features topic."""

    def contacts(self, amount: int, *, outcome: str, reason: str) -> None:
        """Count contacts whose outcome is committed."""

    def http_request(self, duration_s: float, *, status: int | None, error: str | None) -> None:
        """Record one attempt against the scoring API."""

    def transaction(self, *, outcome: str, send_s: float = 0.0, commit_s: float = 0.0) -> None:
        """Record one transaction: ``committed``, ``refused`` or ``failed``."""

    def processed(self, duration_s: float) -> None:
        """Record the time from a request's first attempt to the commit of its outcomes."""

    def partitions(self, owned: int) -> None:
        """Set the number of assigned partitions."""

    def input(self, state: ConsumerLag) -> None:
        """Set the consumer lag."""

    def batch(self, contacts: int) -> None:
        """Record the number of contacts of a request at its first attempt."""

    def chain(self, length: int) -> None:
        """Set the number of audit events in the present chain."""

    def breaker_open(self, reason: str, *, open_s: float, next_probe_s: float) -> None:
        """Set the state for a reason: seconds since it began, seconds until its next probe."""

    def breaker_closed(self, reason: str) -> None:
        """Clear the state for a reason."""

    def probe(self, *, outcome: str) -> None:
        """Count a half-open probe; ``outcome``: ``recovered`` or ``failed``."""

    def waited(self, seconds: float, *, reason: str) -> None:
        """Add the time in which a due request waited."""

    def unmatched_results(self, amount: int) -> None:
        """Count results whose contact was not in the request."""

    def control(self) -> None:
        """Count a scored contact that was sent again as a control."""

    def refused_over_limit(self, *, reason: str, status: str, model_version: str, outcome: str) -> None:
        """Count a contact over the limit of rejections, by cause; ``outcome``: ``rejected`` or ``held``."""

    def version_breakers(self, opened: int) -> None:
        """Set the number of model versions whose circuit breaker alone is open."""

    def sent(self, records: int) -> None:
        """Count the records of committed transactions."""

    def retried(self, amount: int) -> None:
        """Count contacts that were sent again."""

    def in_flight(self, requests: int) -> None:
        """Set the number of requests in flight."""

    def uncommitted(self, contacts: int) -> None:
        """Set the number of contacts that are read and not committed."""

    def quota(self, *, remaining: int, allowed: int, wait_s: float, exhausted_in_s: float) -> None:
        """Set the state of the quota."""
