"""What the worker tells the world: log lines, metrics, and the state behind ``/livez`` and ``/readyz``.

Called by the worker's thread, with sums and never once a contact; read by the admin server's threads.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from stream_scorer.core.events import Scored
from stream_scorer.kafka.sink import Committed, RecordsRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stream_scorer.core.events import Answer, Outcome, Partition
    from stream_scorer.core.requests import Request
    from stream_scorer.kafka.sink import Publication
    from stream_scorer.scoring.holding import Hold


# A shorter wait for the quota is the ordinary pace of a backlog.
_WAIT_WORTH_SAYING_S = 5.0


class Log(Protocol):
    """A structlog logger, as far as it is used here."""

    def info(self, event: str, **fields: Any) -> Any:
        """Worth a line on a normal day."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Somebody may want to look."""


class Metrics(Protocol):
    """See ``telemetry.Metrics``. Amounts are sums."""

    def consumed(self, records: int) -> None:
        """Records read from the features topic."""

    def contacts(self, amount: int, *, outcome: str, reason: str) -> None:
        """Contacts whose outcome is committed."""

    def http_request(self, duration_s: float, *, status: int | None, error: str | None) -> None:
        """One attempt against the scoring API."""

    def transaction(self, *, outcome: str) -> None:
        """One transaction: ``committed``, ``refused`` or ``failed``."""

    def holding(self, reason: str | None) -> None:
        """A hold of this kind began (``api``, ``contract``, ``quota``, ``budget``), or ended with None."""

    def unknown_results(self, amount: int) -> None:
        """Results about contacts that nobody asked about."""

    def sent(self, records: int) -> None:
        """Records of committed transactions."""

    def reasked(self, amount: int) -> None:
        """Contacts that were asked about again."""

    def in_flight(self, requests: int) -> None:
        """Requests at the API now."""

    def uncommitted(self, contacts: int) -> None:
        """Contacts read and not yet committed."""

    def quota_remaining(self, requests: int) -> None:
        """Requests that the quota still allows."""


class Observer:
    """See the module's text.

    Args:
        log: where lines go.
        metrics: where sums go.
        monotonic: clock in seconds.
    """

    def __init__(self, log: Log, metrics: Metrics, monotonic: Callable[[], float]) -> None:
        self._log = log
        self._metrics = metrics
        self._monotonic = monotonic
        self._trouble: str | None = None
        self._hold: Hold | None = None
        self._partitions: set[Partition] = set()
        self._beat_at = monotonic()
        self._wait_reason: str | None = None
        self._waiting_since = 0.0
        self._joined = False
        self._draining = False

    # --- the loop

    def beat(self) -> None:
        """The loop went round."""
        self._beat_at = self._monotonic()

    def state(self, *, in_flight: int, uncommitted: int, quota_remaining: int, wait_reason: str | None) -> None:
        """How things stand, a few times a second; ``wait_reason``: why a request that is due is not sent."""
        self._metrics.in_flight(in_flight)
        self._metrics.uncommitted(uncommitted)
        self._metrics.quota_remaining(quota_remaining)
        if self._hold is None:
            self._metrics.holding(None if wait_reason is None else wait_reason.partition(":")[0])
        if wait_reason != self._wait_reason:
            self._wait_reason = wait_reason
            self._waiting_since = self._monotonic()

    def draining(self) -> None:
        """The loop is about to end."""
        self._draining = True
        self._log.info("draining")

    def consumed(self, records: int) -> None:
        """Records were read."""
        self._metrics.consumed(records)

    def assigned(self, partition: Partition, next_offset: int) -> None:
        """A partition is ours from now on."""
        self._joined = True
        self._partitions.add(partition)
        self._log.info("partition assigned", topic=partition.topic, partition=partition.number, offset=next_offset)

    def disowned(self, partitions: Iterable[Partition]) -> None:
        """Partitions are not ours any more."""
        for partition in partitions:
            self._partitions.discard(partition)
            self._log.info("partition given up", topic=partition.topic, partition=partition.number)

    # --- the API

    def exchanged(self, request: Request, answer: Answer) -> None:
        """An attempt ended."""
        exchange = answer.exchange
        error = getattr(answer, "message", None)
        kind = None if error is None else str(getattr(answer, "trouble", type(answer).__name__))
        if request.attempts > 1 or request.asked_before:
            self._metrics.reasked(len(request.contacts))
        self._metrics.http_request(exchange.latency_ms / 1000, status=exchange.status, error=kind)
        if error is not None:
            self._log.warning(
                "scoring request not answered",
                batch_id=request.batch_id,
                attempt=request.attempts,
                contacts=len(request.contacts),
                status=exchange.status,
                correlation_id=exchange.correlation_id,
                detail=error,
            )

    def unknown_results(self, amount: int) -> None:
        """Results about contacts that nobody asked about."""
        if amount:
            self._metrics.unknown_results(amount)

    def holding(self, hold: Hold | None) -> None:
        """A hold began, or ended with None."""
        previous, self._hold = self._hold, hold
        self._metrics.holding(None if hold is None else "contract" if hold.broken_contract else "api")
        if hold is not None:
            self._log.warning("holding", reason=hold.reason, next_probe_in_s=round(hold.next_probe_at - hold.since, 1))
        elif previous is not None:
            self._log.info(
                "holding ended", after_s=round(self._monotonic() - previous.since, 1), reason=previous.reason
            )

    # --- Kafka

    def transaction(self, publication: Publication) -> None:
        """A transaction ended."""
        match publication:
            case Committed():
                self._metrics.transaction(outcome="committed")
            case RecordsRefused(errors):
                self._metrics.transaction(outcome="refused")
                self._log.warning("records refused", records=len(errors), detail=next(iter(errors.values())))
            case _:
                self._metrics.transaction(outcome="failed")

    def kafka_trouble(self, message: str | None) -> None:
        """Nothing can be published for now, or that is over (None)."""
        if message is None:
            self._log.info("publishing again", after=self._trouble)
        elif message != self._trouble:
            self._log.warning("publishing failed, trying again", detail=message)
        self._trouble = message

    def published(self, outcomes: Iterable[Outcome], *, records: int) -> None:
        """These outcomes are committed, in so many records."""
        self._metrics.sent(records)
        sums: Counter[tuple[str, str]] = Counter()
        for outcome in outcomes:
            if not isinstance(outcome, Scored):
                sums["rejected", outcome.reasons[0]] += 1
            elif outcome.review_reasons:
                sums["review", outcome.review_reasons[0]] += 1
            else:
                sums["scored", ""] += 1
        for (kind, reason), amount in sums.items():
            self._metrics.contacts(amount, outcome=kind, reason=reason)

    # --- for /livez and /readyz

    def why_not_live(self, limit_s: float) -> str | None:
        """Why the process should be restarted, if it should."""
        silent_s = self._monotonic() - self._beat_at
        return f"the loop has stood still for {silent_s:.0f} s" if silent_s > limit_s else None

    def why_not_ready(self) -> str | None:
        """Why no contact is being scored right now, if none is."""
        if self._draining:
            return "draining"
        if not self._joined:
            return "starting: no partition assigned yet"
        if self._hold is not None:
            return f"holding: {self._hold.reason}"
        if self._trouble is not None:
            return f"kafka: {self._trouble}"
        if self._wait_reason is not None and self._monotonic() - self._waiting_since >= _WAIT_WORTH_SAYING_S:
            return f"holding: {self._wait_reason}"
        return None
