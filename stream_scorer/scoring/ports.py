"""Protocols of the scoring service's collaborators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from stream_scorer.core.exactly_once.offset_ledger import OffsetLedger
from stream_scorer.core.scoring.types import Outcome, Skipped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_scorer.core.records import Headers, Partition, SourceRecord
    from stream_scorer.core.scoring.api_response import ApiResponse, RateLimitHeaders
    from stream_scorer.core.scoring.request import Request

OutcomeLedger: TypeAlias = OffsetLedger[Outcome | Skipped]
"""Ledger of the scoring worker: a record is scored, rejected, deferred or skipped."""


class Quota(Protocol):
    """See ``genesys.request_quota.Quota``. Times are monotonic seconds."""

    def wait_s(self, now: float) -> float: ...

    def reason(self, now: float) -> str | None: ...

    def may_send_partial_batch(self, now: float, batches: int = 1) -> bool: ...

    def sent_partial_batch(self, now: float) -> None: ...

    def remaining(self, now: float) -> int: ...

    def allowed(self) -> int: ...

    def exhausted_in_s(self, now: float) -> float: ...

    def sent(self, now: float) -> None: ...

    def update(self, reading: RateLimitHeaders, now: float) -> None: ...

    def answered(self) -> None: ...

    def block_until(self, until: float) -> None: ...


class Trace(Protocol):
    """See ``telemetry.tracing.scoring.ScoringTracer``; ``Untraced`` is used if traces are off."""

    def polling(self) -> None: ...

    def polled(self, records: Sequence[SourceRecord]) -> None:
        """Record the records of a poll that were added to the ledger."""

    def revoked(self, partitions: Sequence[Partition]) -> None: ...

    def response_received(self, request: Request, answer: ApiResponse) -> str | None:
        """Record the end of an attempt. Return its trace id, 32 hexadecimal digits; None if it is not traced."""

    def request_finished(self, request: Request) -> None:
        """Record that a request will not be sent again."""

    def sending(self, record: SourceRecord, topic: str, headers: Headers) -> Headers:
        """Return the headers of an output record, with the trace context of its source record."""

    def committing(self) -> None: ...

    def committed(self, outcomes: Sequence[Outcome]) -> None: ...

    def close(self) -> None:
        """Export the remaining spans."""


class Untraced:
    """Null ``Trace``: no spans, headers unchanged."""

    def polling(self) -> None: ...

    def polled(self, records: Sequence[SourceRecord]) -> None: ...

    def revoked(self, partitions: Sequence[Partition]) -> None: ...

    def response_received(self, request: Request, answer: ApiResponse) -> None: ...

    def request_finished(self, request: Request) -> None: ...

    def sending(self, record: SourceRecord, topic: str, headers: Headers) -> Headers:
        del record, topic
        return headers

    def committing(self) -> None: ...

    def committed(self, outcomes: Sequence[Outcome]) -> None: ...

    def close(self) -> None: ...
