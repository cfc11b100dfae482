"""What the scoring service needs of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from stream_scorer.core.exactly_once.offset_ledger import OffsetLedger
from stream_scorer.core.records import Outcome, Skipped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_scorer.core.exactly_once.stall_detector import ConsumerLag
    from stream_scorer.core.records import ApiResponse, Headers, Partition, RateLimitHeaders, SourceRecord
    from stream_scorer.core.scoring.request import Request

OutcomeLedger: TypeAlias = OffsetLedger[Outcome | Skipped]
"""Ledger of the scoring worker: a record is scored, rejected, deferred or skipped."""


class Pool(Protocol):
    """See ``scoring.pool.RequestPool``."""

    size: int

    def submit(self, request: Request) -> None:
        """Starts an attempt."""

    def answers(self, wait_s: float = 0.0) -> list[tuple[Request, ApiResponse]]:
        """The attempts that have ended."""


class Quota(Protocol):
    """See ``genesys.quota.Quota``. Times are monotonic seconds."""

    def wait_s(self, now: float) -> float:
        """Seconds until a request may be sent."""

    def reason(self, now: float) -> str | None:
        """Why that is not now."""

    def may_send_partial_batch(self, now: float, batches: int = 1) -> bool:
        """Whether a batch that is not full is worth a request now, where so many stand open."""

    def sent_partial_batch(self, now: float) -> None:
        """A batch that is not full was taken."""

    def remaining(self, now: float) -> int:
        """Requests that may be sent now at once."""

    def allowed(self) -> int:
        """Requests that a window allows."""

    def exhausted_in_s(self, now: float) -> float:
        """Seconds until the quota is used up at the present pace."""

    def sent(self, now: float) -> None:
        """A request goes out."""

    def update(self, reading: RateLimitHeaders, now: float) -> None:
        """Record a response with quota headers."""

    def answered(self) -> None:
        """Record a response without quota headers, or a request without a response."""

    def block_until(self, until: float) -> None:
        """The API said not to come back before."""


class Trace(Protocol):
    """See ``telemetry.tracing.scoring.ScoringTracer``; ``Untraced`` is used if traces are off."""

    def polling(self) -> None:
        """The worker is about to read."""

    def polled(self, records: Sequence[SourceRecord]) -> None:
        """Records were read, and taken into the books."""

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Discard the spans of revoked partitions."""

    def response_received(self, request: Request, answer: ApiResponse) -> str | None:
        """Record the end of an attempt. Return its trace id, 32 hexadecimal digits; None if it is not traced."""

    def request_finished(self, request: Request) -> None:
        """This request will not be sent again."""

    def sending(self, record: SourceRecord, topic: str, headers: Headers) -> Headers:
        """Returns the headers of an output, which hand on the trace of the record it came from."""

    def committing(self, outcomes: Sequence[Outcome]) -> None:
        """A transaction with these outcomes is about to begin."""

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """These outcomes are committed."""

    def commit_resolved(self, offsets: Mapping[Partition, int]) -> None:
        """It was not known whether the last transaction was committed; these offsets are."""

    def close(self) -> None:
        """Sends what is left."""


class Untraced:
    """A ``Trace`` that leaves none: headers go through as they are."""

    def polling(self) -> None:
        """Nothing."""

    def polled(self, records: Sequence[SourceRecord]) -> None:
        """Nothing."""

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Nothing."""

    def response_received(self, request: Request, answer: ApiResponse) -> None:
        """None."""

    def request_finished(self, request: Request) -> None:
        """Nothing."""

    def sending(self, record: SourceRecord, topic: str, headers: Headers) -> Headers:
        """Returns them."""
        del record, topic
        return headers

    def committing(self, outcomes: Sequence[Outcome]) -> None:
        """Nothing."""

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """Nothing."""

    def commit_resolved(self, offsets: Mapping[Partition, int]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Log(Protocol):
    """A structlog logger, as far as it is used here."""

    def info(self, event: str, **fields: Any) -> Any:
        """Worth a line on a normal day."""

    def error(self, event: str, **fields: Any) -> Any:
        """An operator has to act."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Somebody may want to look."""

    def debug(self, event: str, **fields: Any) -> Any:
        """Log at level debug, for the search for one contact."""


class Metrics(Protocol):
    """See ``telemetry.metrics.scoring.Metrics``. Amounts are sums."""

    def consumed(self, records: int, *, poll_s: float) -> None:
        """Records that one poll read from the features topic."""

    def contacts(self, amount: int, *, outcome: str, reason: str) -> None:
        """Contacts whose outcome is committed."""

    def http_request(self, duration_s: float, *, status: int | None, error: str | None) -> None:
        """One attempt against the scoring API."""

    def transaction(self, *, outcome: str, send_s: float = 0.0, commit_s: float = 0.0) -> None:
        """One transaction: ``committed``, ``refused`` or ``failed``."""

    def processed(self, duration_s: float) -> None:
        """Outcomes of a request are committed: how long after its first attempt."""

    def partitions(self, owned: int) -> None:
        """How many partitions are assigned."""

    def input(self, state: ConsumerLag) -> None:
        """How far the input is."""

    def batch(self, contacts: int) -> None:
        """Record the number of contacts of a request at its first attempt."""

    def chain(self, length: int) -> None:
        """So many audit events are in the present chain."""

    def breaker_open(self, reason: str, *, open_s: float, next_probe_s: float) -> None:
        """Set the state for a reason: seconds since it began, seconds until its next probe."""

    def breaker_closed(self, reason: str) -> None:
        """Clear the state for a reason."""

    def probe(self, *, outcome: str) -> None:
        """Count a half-open probe; ``outcome``: ``recovered`` or ``failed``."""

    def waited(self, seconds: float, *, reason: str) -> None:
        """Add the time in which a due request waited."""

    def unmatched_results(self, amount: int) -> None:
        """Results whose contact was not in the request."""

    def control(self) -> None:
        """A scored contact that was sent again as a control."""

    def refused_over_limit(self, *, reason: str, status: str, model_version: str, outcome: str) -> None:
        """A contact over the limit of rejections, by cause; ``outcome``: ``rejected`` or ``held``."""

    def version_breakers(self, opened: int) -> None:
        """Model versions whose circuit breaker alone is open."""

    def sent(self, records: int) -> None:
        """Records of committed transactions."""

    def retried(self, amount: int) -> None:
        """Contacts that were sent again."""

    def in_flight(self, requests: int) -> None:
        """Requests at the API now."""

    def uncommitted(self, contacts: int) -> None:
        """Contacts read and not yet committed."""

    def quota(self, *, remaining: int, allowed: int, wait_s: float, exhausted_in_s: float) -> None:
        """How the quota stands."""
