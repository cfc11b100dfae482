"""Protocols of the scoring service's collaborators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from stream_scorer.core.exactly_once.offset_ledger import OffsetLedger
from stream_scorer.core.records import Outcome, Skipped

if TYPE_CHECKING:
    from collections.abc import Sequence

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
