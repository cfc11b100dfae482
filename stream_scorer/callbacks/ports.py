"""Protocols of the callback service's collaborators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_scorer.core.callbacks.types import Callback, DeliveryAnswer, Score
    from stream_scorer.core.exactly_once.stall_detector import ConsumerLag


class Target(Protocol):
    """A campaign manager: builds bodies for the planner, delivers them for the deliverer.

    The planner's thread calls ``entry`` and ``body``, which are pure: the same arguments give the same bytes. The
    deliverer's pool threads call ``deliver``, several at once.

    Attributes:
        name: kind and host of the target in callbacks and receipts, such as ``webhook https://host``; without user
            information, path, query or anything else that may be a secret.
        max_body_bytes: exclusive upper limit of a body.
    """

    name: str
    max_body_bytes: int

    def entry(self, score: Score) -> bytes:
        """Return the part of a body for one contact."""

    def body(
        self, callback_id: str, campaign_id: str | None, model_id: str, planned_at_ms: int, entries: Sequence[bytes]
    ) -> bytes:
        """Return the body of a callback, sent unchanged at every attempt."""

    def allowance(self) -> int | None:
        """Return how many attempts may be made now, uncounted ones in flight included; None: any number.

        More attempts would wait inside ``deliver`` and look like a slow receiver.
        """

    def deliver(self, callback: Callback, traceparent: str | None = None, /) -> DeliveryAnswer:
        """Make one attempt. Block until the response or the deadline; failures of the receiver are not raised.

        ``traceparent``: the W3C trace context of the attempt, for targets that propagate it.
        """

    def close(self) -> None:
        """Close its connections."""


class Log(Protocol):
    """The methods of a structlog logger that are used here."""

    def info(self, event: str, **fields: Any) -> Any:
        """Log an event of normal operation."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Log an event that an operator may want to examine."""


class Metrics(Protocol):
    """See ``telemetry.metrics.callbacks.CallbackMetrics``. Amounts are sums."""

    def consumed(self, records: int, *, poll_s: float, loop: str) -> None:
        """Count the records that one poll read."""

    def sent(self, records: int, *, loop: str) -> None:
        """Count the records of committed transactions."""

    def transaction(self, *, loop: str, outcome: str, send_s: float = 0.0, commit_s: float = 0.0) -> None:
        """Record one transaction: ``committed``, ``refused`` or ``failed``."""

    def processed(self, duration_s: float, *, loop: str) -> None:
        """Record the time from the start of the work on a record to its commit."""

    def partitions(self, owned: int, *, loop: str) -> None:
        """Set the number of assigned partitions."""

    def input(self, state: ConsumerLag, *, loop: str) -> None:
        """Set the consumer lag."""

    def planned(self, callbacks: int, contacts: int) -> None:
        """Count callbacks whose plan is committed, and their contacts."""

    def finished(self, callbacks: int, *, outcome: str) -> None:
        """Count callbacks with a receipt: ``delivered``, ``refused``, ``gave_up`` or ``expired``."""

    def unusable(self, records: int, *, reason: str) -> None:
        """Count rejected records."""

    def postponed(self, callbacks: int, *, retry_topic: int, reason: str) -> None:
        """Count callbacks written to a retry topic."""

    def attempt(self, duration_s: float, *, status: int | None, result: str) -> None:
        """Record one request to the campaign manager."""

    def in_flight(self, requests: int) -> None:
        """Set the number of requests in flight."""

    def waiting(self, callbacks: Mapping[str, int]) -> None:
        """Set the number of callbacks in memory that are not in flight, by reason."""

    def uncommitted(self, callbacks: int) -> None:
        """Set the number of callbacks that are read and not committed."""

    def circuit_breaker(self, is_open: bool, *, loop: str, reason: str) -> None:
        """Set whether a loop is blocked by ``target``, ``kafka`` or ``registry``."""
