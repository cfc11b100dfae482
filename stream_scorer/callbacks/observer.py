"""Observers of the callback loops: log events, metrics, and the state behind ``/livez`` and ``/readyz``.

Each loop has its own observer, called by its thread and read by the admin server's. Log events are about the loop or a
campaign, never one per callback.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from stream_scorer.core.callbacks.delivery_policy import Completed, DeferredDelivery
from stream_scorer.core.callbacks.types import DeliveryKind
from stream_scorer.core.exactly_once.stall_detector import (
    NOTHING_READ,
    GroupMembership,
    StallDetector,
    liveness_failure,
)
from stream_scorer.core.trace_context import parse_traceparent
from stream_scorer.kafka.producer.records import Committed, RecordsRejected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from stream_scorer.callbacks.ports import Log, Metrics
    from stream_scorer.core.callbacks.delivery_policy import Delivery, DeliveryOutcome
    from stream_scorer.core.callbacks.selection import Plan
    from stream_scorer.core.callbacks.types import DeliveryAnswer
    from stream_scorer.core.exactly_once.stall_detector import CommitPosition
    from stream_scorer.core.records import Partition
    from stream_scorer.kafka.producer.records import Publication


class LoopObserver:
    """Base class of the observers of both loops.

    Args:
        name: of the loop, in log events and metrics.
        log: receives the log events.
        metrics: receives the sums.
        monotonic: clock in seconds.
        standby_after_s: see `GroupMembership`.
    """

    def __init__(
        self,
        name: str,
        log: Log,
        metrics: Metrics,
        monotonic: Callable[[], float],
        standby_after_s: float = 0.0,
    ) -> None:
        self._name = name
        self._log = log
        self._metrics = metrics
        self._monotonic = monotonic
        self._last_error: str | None = None
        self._schema_wanted: str | None = None
        self._heartbeat_at = monotonic()
        self._members = GroupMembership(standby_after_s)
        self._stall_detector = StallDetector()
        self._input = NOTHING_READ
        self._draining = False

    def heartbeat(self) -> None:
        """Record one iteration of the loop."""
        self._heartbeat_at = self._monotonic()

    def draining(self, reason: str | None) -> None:
        """Log that the loop is about to end; ``reason``: the error that ends it; None if it was stopped."""
        self._draining = True
        if reason is None:
            self._log.info("draining", loop=self._name)
        else:
            # Logged before the worker leaves the group: that may take until the time-out that ends the process.
            self._log.warning("draining", loop=self._name, detail=reason)

    def consumed(self, records: int, *, poll_s: float) -> None:
        """Count the records of a poll, with its duration."""
        self._metrics.consumed(records, poll_s=poll_s, loop=self._name)

    def lag_observed(
        self,
        positions: Iterable[CommitPosition],
        ends: Mapping[Partition, int],
        now_ms: int,
        *,
        explained: bool = False,
    ) -> None:
        """Record the consumer lag, about once a second; ``explained``: whether callbacks wait for a known time."""
        explained = explained or self.readiness_failure() is not None
        self._input = self._stall_detector.observe(positions, ends, self._monotonic(), now_ms, explained=explained)
        self._metrics.input(self._input, loop=self._name)
        if self._members.becomes_standby(self._monotonic()):
            self._log.info(
                "no partitions assigned", loop=self._name, detail="the group has a member for every partition"
            )

    def partition_assigned(self, partition: Partition, next_offset: int) -> None:
        """Record and log an assigned partition."""
        self._members.assigned(partition)
        self._metrics.partitions(self._members.owned, loop=self._name)
        self._log.info(
            "partition assigned",
            loop=self._name,
            topic=partition.topic,
            partition=partition.number,
            offset=next_offset,
        )

    def partitions_revoked(self, partitions: Iterable[Partition]) -> None:
        """Record and log revoked partitions."""
        gone = list(partitions)
        self._members.revoked(gone)
        self._metrics.partitions(self._members.owned, loop=self._name)
        for partition in gone:
            self._log.info("partition revoked", loop=self._name, topic=partition.topic, partition=partition.number)

    def rebalance_completed(self) -> None:
        """Record the end of a rebalance."""
        self._members.rebalanced(self._monotonic())

    def disconnected(self, reason: str) -> None:
        """Record that no broker can be reached or none grants access; the next group event ends that state."""
        self._members.disconnected(reason)

    def transaction(self, publication: Publication) -> None:
        """Record the end of a transaction."""
        match publication:
            case Committed(send_s, commit_s):
                self._metrics.transaction(loop=self._name, outcome="committed", send_s=send_s, commit_s=commit_s)
            case RecordsRejected(errors):
                self._metrics.transaction(loop=self._name, outcome="refused")
                self._log.warning(
                    "records rejected by broker",
                    loop=self._name,
                    records=len(errors),
                    detail=next(iter(errors.values())),
                )
            case _:
                self._metrics.transaction(loop=self._name, outcome="failed")

    def commit_blocked(self, message: str | None) -> None:
        """Record that nothing can be written, or that this state has ended (None)."""
        self._metrics.circuit_breaker(message is not None, loop=self._name, reason="kafka")
        if message is None:
            self._log.info("transactions recovered", loop=self._name, after=self._last_error)
        elif message != self._last_error:
            self._log.warning("transaction failed", loop=self._name, detail=message)
        self._last_error = message

    def schemas_pending(self, reason: str | None) -> None:
        """Record why records wait for their writers' schemas; None: none waits any more."""
        self._metrics.circuit_breaker(reason is not None, loop=self._name, reason="registry")
        if reason is None:
            self._log.info("schema registry recovered", loop=self._name)
        else:
            self._log.warning("schema registry unavailable", loop=self._name, detail=reason)
        self._schema_wanted = reason

    def liveness_failure(self, still_limit_s: float, wait_limit_s: float) -> str | None:
        """Return why the process should be restarted; None if it should not.

        Args:
            still_limit_s: how long the loop may stand still.
            wait_limit_s: how long an event may wait without a known reason.
        """
        reason = liveness_failure(
            self._monotonic() - self._heartbeat_at, self._input.unexplained_s, still_limit_s, wait_limit_s
        )
        return None if reason is None else f"{self._name}: {reason}"

    def readiness_failure(self) -> str | None:
        """Return why the loop makes no progress now; None if it does."""
        if self._draining:
            return f"{self._name}: draining"
        if self._last_error is not None:
            return f"{self._name}: kafka: {self._last_error}"
        if (no_partition := self._members.unready_reason()) is not None:
            return f"{self._name}: {no_partition}"
        if self._schema_wanted is not None:
            return f"{self._name}: registry: {self._schema_wanted}"
        return None


class PlannerObserver(LoopObserver):
    """Observer of the planner."""

    def planned(self, plan: Plan, *, records: int, took_s: float) -> None:
        """Count a committed plan; ``took_s``: time since its first score was read."""
        self._metrics.sent(records, loop=self._name)
        self._metrics.processed(took_s, loop=self._name)
        contacts = sum(len(callback.contact_ids) for callback in plan.callbacks)
        if plan.callbacks:
            self._metrics.planned(len(plan.callbacks), contacts)
        if plan.expired:
            self._metrics.finished(len(plan.expired), outcome="expired")
        for unusable in plan.unusable:
            self._metrics.unusable(1, reason=unusable.reason)


class DelivererObserver(LoopObserver):
    """Observer of the deliverer."""

    def __init__(
        self,
        name: str,
        log: Log,
        metrics: Metrics,
        monotonic: Callable[[], float],
        standby_after_s: float = 0.0,
    ) -> None:
        super().__init__(name, log, metrics, monotonic, standby_after_s)
        self._open_reason: str | None = None
        self._opened_at = 0.0

    def attempted(self, answer: DeliveryAnswer) -> None:
        """Record the end of an attempt."""
        self._metrics.attempt(answer.latency_ms / 1000, status=answer.status, result=answer.kind.value)

    def campaign_health_changed(self, delivery: Delivery, answer: DeliveryAnswer) -> None:
        """Log that the deliveries of a campaign have begun or ceased to fail."""
        callback, context = delivery.callback, parse_traceparent((delivery.traceparent or "").encode())
        fields = {
            "campaign_id": callback.campaign_id,
            "callback_id": callback.callback_id,
            "trace_id": f"{context.trace_id:032x}" if context is not None and context.sampled else None,
        }
        if answer.kind is DeliveryKind.TRY_LATER:
            self._log.warning("campaign deliveries failing", **fields, status=answer.status, detail=answer.message)
        elif answer.kind is not DeliveryKind.SWITCHED_OFF:
            self._log.info("campaign deliveries recovered", **fields)

    def rate_limited(self, campaign_id: str | None) -> None:
        """Log that a campaign has more callbacks than its rate limit allows."""
        self._log.warning("campaign rate limited", campaign_id=campaign_id, limit="callbacks.max_per_minute")

    def breaker_changed(self, message: str | None) -> None:
        """Log that the target's breaker has opened, or closed (None)."""
        self._metrics.circuit_breaker(message is not None, loop=self._name, reason="target")
        if message is not None:
            self._open_reason, self._opened_at = message, self._monotonic()
            self._log.warning("circuit opened", reason=f"target switched off: {message}")
        elif self._open_reason is not None:
            self._open_reason = None
            self._log.info("circuit closed", after_s=round(self._monotonic() - self._opened_at, 1))

    def committed(self, outcomes: Iterable[DeliveryOutcome], *, records: int) -> None:
        """Count committed outcomes and their records."""
        self._metrics.sent(records, loop=self._name)
        ended: Counter[str] = Counter()
        postponed: Counter[tuple[int, str]] = Counter()
        for outcome in outcomes:
            match outcome:
                case Completed():
                    ended[outcome.outcome.value.lower()] += 1
                    self._processed(outcome.began)
                case DeferredDelivery():
                    postponed[outcome.retry_level, outcome.reason.value] += 1
                    self._processed(outcome.began)
                case _:
                    self._metrics.unusable(1, reason=outcome.reason)
        for name, amount in ended.items():
            self._metrics.finished(amount, outcome=name)
        for (level, reason), amount in postponed.items():
            self._metrics.postponed(amount, retry_topic=level, reason=reason)

    def _processed(self, began: float | None) -> None:
        if began is not None:
            self._metrics.processed(self._monotonic() - began, loop=self._name)

    def state(self, *, in_flight: int, waiting: Mapping[str, int], uncommitted: int) -> None:
        """Set the gauges, a few times a second."""
        self._metrics.in_flight(in_flight)
        self._metrics.waiting(waiting)
        self._metrics.uncommitted(uncommitted)

    def readiness_failure(self) -> str | None:
        """Return why nothing is delivered now; None if callbacks are."""
        reason = super().readiness_failure()
        if reason is None and self._open_reason is not None:
            return f"{self._name}: circuit open: target switched off: {self._open_reason}"
        return reason
