"""Observer of the worker: log events, metrics, and the state behind ``/livez`` and ``/readyz``.

The worker's thread calls it with sums, never per contact. The admin server's threads read it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from stream_scorer.core.exactly_once.stall_detector import (
    NOTHING_READ,
    GroupMembership,
    StallDetector,
    liveness_failure,
)
from stream_scorer.core.records import Deferred, Rejected, Unavailable
from stream_scorer.core.scoring.model_check import ModelConfirmed, ModelUnavailable
from stream_scorer.kafka.producer.records import Committed, RecordsRejected
from stream_scorer.scoring.circuit_breaker import BreakerState, OpenReason
from stream_scorer.scoring.state_report import StateReport, next_of
from stream_scorer.scoring.wait_reasons import WaitTimer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from stream_scorer.core.exactly_once.stall_detector import CommitPosition
    from stream_scorer.core.records import ApiResponse, Exchange, Outcome, Partition
    from stream_scorer.core.scoring.model_check import ModelCheck
    from stream_scorer.core.scoring.refusal_limit import Cause
    from stream_scorer.core.scoring.request import Request
    from stream_scorer.kafka.producer.records import Publication
    from stream_scorer.runtime.clock import Clock
    from stream_scorer.scoring.ports import Log, Metrics, Quota
    from stream_scorer.scoring.state_report import ReportedState
    from stream_scorer.scoring.wait_reasons import WaitReason

_LIMIT_LOGGED_EVERY_S = 60.0


class Observer:
    """See the module docstring.

    Args:
        log: receives the log events.
        metrics: receives the sums.
        clock: the time.
        standby_after_s: see `GroupMembership`.
        retry_topics: their partitions are assigned together with those of the features topic, and are not counted.
    """

    def __init__(
        self,
        log: Log,
        metrics: Metrics,
        clock: Clock,
        standby_after_s: float = 0.0,
        retry_topics: Collection[str] = (),
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._clock = clock
        self._monotonic = clock.monotonic
        self._state_report = StateReport(clock)
        self._breaker: ReportedState | None = None
        self._kafka: ReportedState | None = None
        self._registry: ReportedState | None = None
        self._membership = GroupMembership(standby_after_s)
        self._retry_topics = frozenset(retry_topics)
        self._stall_detector = StallDetector()
        self._input = NOTHING_READ
        self._heartbeat_at = clock.monotonic()
        self._waits = WaitTimer()
        self._explained = False
        self._draining = False
        self._limit_logged_at: dict[Cause, float] = {}
        self._start: ReportedState | None = None
        self._ignored_retry_after = False

    # --- the start

    def model_checked(self, check: ModelCheck) -> None:
        """Record the result of a check of token and model."""
        exchange, kind = check.exchange, None if isinstance(check, ModelConfirmed) else check.kind
        self._http_requests(exchange, kind)
        if exchange.error_text:
            self._log.debug("error text received", status=exchange.status, text=exchange.error_text)
        if isinstance(check, ModelUnavailable):
            self._retry_after_ignored(check.ignored_retry_after)

    def start_delayed(self, reason: str, *, since: float, next_attempt_at: float) -> None:
        """Record that token and model are not confirmed yet; called about once a second until the next attempt."""
        self.heartbeat()
        before = self._start
        self._start = self._state_report.report(BreakerState(OpenReason.API, reason, since, next_attempt_at), before)
        if self._start is None:
            return
        self._measure(self._start.state)
        if before is None or not before.state.covers(reason):
            left_s = self._state_report.left_s(self._start.state)
            facts = {"reason": reason, "since": self._start.since}
            self._log.warning("start delayed", **facts, next_attempt_in_s=round(left_s, 1))

    def model_confirmed(self, status: int | None, *, attempts: int, began_at: float) -> None:
        """Log that the API has confirmed token and model: the worker joins its group now."""
        if self._start is not None:
            self._start = None
            self._metrics.breaker_closed(OpenReason.API)
        after_s = round(self._monotonic() - began_at, 1)
        self._log.info("model confirmed", status=status, attempts=attempts, after_s=after_s)

    # --- the loop

    def heartbeat(self) -> None:
        """Record one iteration of the loop."""
        self._heartbeat_at = self._monotonic()

    def wait_observed(self, reason: WaitReason | None) -> None:
        """Record why due requests were not sent; None if all were."""
        # Kept until the next `lag_observed`: a retry may wait between two of them, and nothing at the second.
        self._explained = self._explained or (reason is not None and reason.explains_stall)
        self._waits.observe(reason, self._monotonic())

    def state(self, *, in_flight: int, uncommitted: int, quota: Quota, breaker: BreakerState | None) -> None:
        """Set the gauges, a few times a second; ``breaker``: the open or throttled state as reported."""
        now = self._monotonic()
        self._metrics.in_flight(in_flight)
        self._metrics.uncommitted(uncommitted)
        self._metrics.quota(
            remaining=quota.remaining(now),
            allowed=quota.allowed(),
            wait_s=quota.wait_s(now),
            exhausted_in_s=quota.exhausted_in_s(now),
        )
        for reason, seconds in self._waits.drain().items():
            self._metrics.waited(seconds, reason=reason)
        self._breaker = self._state_report.report(breaker, self._breaker)
        for known in (self._breaker, self._kafka, self._registry):
            if known is not None:
                self._measure(known.state)

    def lag_observed(self, positions: Iterable[CommitPosition], ends: Mapping[Partition, int]) -> None:
        """Record the consumer lag, about once a second; see `StallDetector.observe`."""
        explained = self._explained or self.readiness_failure() is not None
        self._explained = False
        self._input = self._stall_detector.observe(
            positions, ends, self._monotonic(), self._clock.unix_ms(), explained=explained
        )
        self._metrics.input(self._input)
        if self._membership.becomes_standby(self._monotonic()):
            self._log.info("no partitions assigned", detail="the group has a member for every partition")

    def draining(self, reason: str | None) -> None:
        """Log that the loop is about to end; ``reason``: the error that ends it; None if it was stopped."""
        self._draining = True
        if reason is None:
            self._log.info("draining")
        else:
            # Logged before the worker leaves the group: that may take until the time-out that ends the process.
            self._log.warning("draining", detail=reason)

    def drained(self, contacts: int) -> None:
        """Log how many contacts the next owner sends again: in flight, or billed and not committed."""
        say = self._log.warning if contacts else self._log.info
        say("drained", contacts_sent_again=contacts)

    def consumed(self, records: int, *, poll_s: float) -> None:
        """Count the records of a poll, with its duration."""
        self._metrics.consumed(records, poll_s=poll_s)

    def partition_assigned(self, partition: Partition, next_offset: int) -> None:
        """Record and log an assigned partition."""
        if partition.topic not in self._retry_topics:
            self._membership.assigned(partition)
        self._metrics.partitions(self._membership.owned)
        self._log.info("partition assigned", topic=partition.topic, partition=partition.number, offset=next_offset)

    def partitions_revoked(self, partitions: Iterable[Partition]) -> None:
        """Record and log revoked partitions."""
        gone = list(partitions)
        self._membership.revoked(gone)
        self._metrics.partitions(self._membership.owned)
        for partition in gone:
            self._log.info("partition revoked", topic=partition.topic, partition=partition.number)

    def rebalance_completed(self) -> None:
        """Record the end of a rebalance."""
        self._membership.rebalanced(self._monotonic())

    def disconnected(self, reason: str) -> None:
        """Record that no broker can be reached or none grants access; the next group event ends that state."""
        self._membership.disconnected(reason)

    # --- the API

    def response_received(self, request: Request, answer: ApiResponse, trace_id: str | None = None) -> None:
        """Log and count an attempt; ``trace_id``: of the trace that contains it."""
        exchange = answer.exchange
        error = getattr(answer, "message", None)
        kind = None if error is None else str(getattr(answer, "failure", type(answer).__name__))
        if request.attempts > 1 or request.retried_unanswered:
            self._metrics.retried(len(request.contacts))
        if request.attempts == 1:
            self._metrics.batch(len(request.contacts))
        self._http_requests(exchange, kind)
        if exchange.error_text:
            self._log.debug(
                "error text received",
                batch_id=request.batch_id,
                attempt=request.attempts,
                status=exchange.status,
                text=exchange.error_text,
            )
        if isinstance(answer, Unavailable):
            self._retry_after_ignored(answer.ignored_retry_after)
        # The circuit breaker logs the failures of its probes once.
        if error is not None and (self._breaker is None or not self._breaker.state.covers(error)):
            self._log.warning(
                "scoring request failed",
                batch_id=request.batch_id,
                attempt=request.attempts,
                contacts=len(request.contacts),
                status=exchange.status,
                correlation_id=exchange.correlation_id,
                trace_id=trace_id,
                detail=error,
            )

    def _http_requests(self, exchange: Exchange, kind: str | None) -> None:
        if exchange.earlier is not None:
            self._metrics.http_request(exchange.earlier.latency_ms / 1000, status=exchange.earlier.status, error=None)
        self._metrics.http_request(exchange.latency_ms / 1000, status=exchange.status, error=kind)

    def _retry_after_ignored(self, value: str) -> None:
        """Log once per process: the API sends such a header with every response."""
        if value and not self._ignored_retry_after:
            self._ignored_retry_after = True
            detail = f"the header is unreadable, not positive or over a day: {value}"
            self._log.warning("retry-after ignored", detail=detail)

    def unmatched_results(self, amount: int) -> None:
        """Count results whose contact was not in the request."""
        if amount:
            self._metrics.unmatched_results(amount)

    def breaker_changed(self, before: BreakerState | None, breaker: BreakerState | None) -> None:
        """Log a change of the circuit breaker: opened, throttled, another reason or message, closed (None)."""
        known = self._breaker
        self._breaker = self._state_report.report(breaker, known)
        if before is not None and (breaker is None or breaker.reason is not before.reason):
            self._metrics.breaker_closed(before.reason)
        if self._breaker is not None and breaker is not None:
            self._measure(breaker)
            fields = {
                **self._breaker.facts,
                f"next_{next_of(breaker)}_in_s": round(self._state_report.left_s(breaker), 1),
            }
            say = self._log.warning if breaker.is_open else self._log.info
            say(_change(before, breaker), **fields, for_s=self._state_report.age_s(breaker))
        elif before is not None and known is not None:
            self._log.info(
                "circuit closed", **known.facts, after_s=self._state_report.age_s(before), probes=before.probes
            )

    def version_breaker_changed(self, model_version: str | None, reason: str | None, *, opened: int) -> None:
        """Log the breaker of a model version that opened alone (``reason``) or is half-open again (None)."""
        self._metrics.version_breakers(opened)
        if reason is None:
            self._log.info("version circuit half-open", model_version=model_version)
        else:
            self._log.warning("version circuit opened", model_version=model_version, detail=reason)

    def control_sent(self) -> None:
        """Count a scored contact that was sent again."""
        self._metrics.control()

    def refusal_limit_reached(self, cause: Cause, count: int, is_held: bool) -> None:
        """Count a contact over the limit of rejections, and log the cause once a minute."""
        outcome = "held" if is_held else "rejected"
        status = "" if cause.status is None else str(cause.status)
        version = cause.model_version or ""
        self._metrics.refused_over_limit(reason=cause.reason, status=status, model_version=version, outcome=outcome)
        now = self._monotonic()
        if now - self._limit_logged_at.get(cause, float("-inf")) < _LIMIT_LOGGED_EVERY_S:
            return
        self._limit_logged_at[cause] = now
        say = self._log.error if is_held else self._log.warning
        say(
            f"contacts {outcome} over the limit",
            reason=cause.reason,
            status=cause.status,
            model_version=cause.model_version,
            contacts=count,
            detail="compare what the API refuses with the producer's latest change; scoring.max_refused_share",
        )

    def probed(self, outcome: str) -> None:
        """Count a half-open probe; ``outcome``: ``recovered`` or ``failed``."""
        self._metrics.probe(outcome=outcome)

    # --- Kafka

    def transaction(self, publication: Publication) -> None:
        """Record the end of a transaction."""
        match publication:
            case Committed(send_s, commit_s):
                self._metrics.transaction(outcome="committed", send_s=send_s, commit_s=commit_s)
            case RecordsRejected(errors):
                self._metrics.transaction(outcome="refused")
                self._log.warning("records rejected by broker", records=len(errors), detail=next(iter(errors.values())))
            case _:
                self._metrics.transaction(outcome="failed")

    def commit_blocked(self, message: str | None) -> None:
        """Record that nothing can be published, or that this state has ended (None)."""
        now, before = self._monotonic(), self._kafka
        if message is None:
            self._kafka = None
            self._metrics.breaker_closed(OpenReason.KAFKA)
            self._log.info("transactions recovered", after=None if before is None else before.state.message)
        elif before is None or message != before.state.message:
            since = now if before is None else before.state.since
            self._kafka = self._state_report.report(BreakerState(OpenReason.KAFKA, message, since, now), before)
            self._log.warning("transaction failed", detail=message)

    def schemas_pending(self, reason: str | None) -> None:
        """Record why records wait for their writers' schemas; None: none waits any more."""
        now, before = self._monotonic(), self._registry
        if reason is None:
            self._registry = None
            self._metrics.breaker_closed(OpenReason.REGISTRY)
            self._log.info("schema registry recovered", after=None if before is None else before.state.message)
        else:
            since = now if before is None else before.state.since
            self._registry = self._state_report.report(BreakerState(OpenReason.REGISTRY, reason, since, now), before)
            self._log.warning("schema registry unavailable", detail=reason)

    def published(self, outcomes: Iterable[Outcome], *, records: int) -> None:
        """Count committed outcomes and their records."""
        self._metrics.sent(records)
        sums: Counter[tuple[str, str]] = Counter()
        began_ms: dict[str, int] = {}
        for outcome in outcomes:
            if outcome.request is not None:
                began_ms[outcome.request.batch_id] = outcome.request.started_at_ms
            if isinstance(outcome, Deferred):
                sums["deferred", str(outcome.level)] += 1
            elif isinstance(outcome, Rejected):
                sums["rejected", outcome.reasons[0]] += 1
            elif outcome.review_reasons:
                sums["review", outcome.review_reasons[0]] += 1
            else:
                sums["scored", ""] += 1
        for (kind, reason), amount in sums.items():
            self._metrics.contacts(amount, outcome=kind, reason=reason)
        now_ms = self._clock.unix_ms()
        for at_ms in began_ms.values():
            self._metrics.processed(max(0.0, (now_ms - at_ms) / 1000))

    def audit_chain_length(self, length: int) -> None:
        """Set the number of audit events in the present chain."""
        self._metrics.chain(length)

    def records_rejected(self, outcomes: Sequence[tuple[Outcome, str]]) -> None:
        """Log contacts whose records the broker rejects; ``outcomes``: each with its contact id."""
        batch_ids = dict.fromkeys(outcome.request.batch_id for outcome, _ in outcomes if outcome.request is not None)
        self._log.warning(
            "contacts rejected by broker",
            contacts=len(outcomes),
            batches=len(batch_ids),
            batch_id=next(iter(batch_ids), None),
        )
        for outcome, contact_id in outcomes:
            self._log.debug("contact rejected by broker", contact_id=contact_id, source=outcome.record.source)

    # --- for /livez and /readyz

    def liveness_failure(self, still_limit_s: float, wait_limit_s: float) -> str | None:
        """Return why the process should be restarted; None if it should not.

        Args:
            still_limit_s: how long the loop may stand still.
            wait_limit_s: how long an event may wait without a known reason.
        """
        return liveness_failure(
            self._monotonic() - self._heartbeat_at, self._input.unexplained_s, still_limit_s, wait_limit_s
        )

    def readiness_failure(self) -> str | None:
        """Return why no contact is scored now; None if contacts are."""
        if self._draining:
            return "draining"
        if self._start is not None:
            start = self._start.state
            left_s = self._state_report.left_s(start)
            return f"starting: {start.message}; {self._state_report.since(self._start)}; next attempt in {left_s:.0f} s"
        known, kafka = self._breaker, self._kafka
        if kafka is not None and (known is None or not known.state.is_open):
            return f"kafka: {kafka.state.message}; {self._state_report.since(kafka)}"
        if (no_partition := self._membership.unready_reason()) is not None:
            return no_partition
        if known is None:
            registry = self._registry
            return (
                None
                if registry is None
                else f"registry: {registry.state.message}; {self._state_report.since(registry)}"
            )
        breaker = known.state
        left_s = self._state_report.left_s(breaker)
        word = "circuit open" if breaker.is_open else "throttled"
        return (
            f"{word}: {breaker.message}; {self._state_report.since(known)}; next {next_of(breaker)} in {left_s:.0f} s"
        )

    def _measure(self, breaker: BreakerState) -> None:
        age_s, left_s = self._state_report.age_s(breaker), self._state_report.left_s(breaker)
        self._metrics.breaker_open(breaker.reason, open_s=age_s, next_probe_s=left_s)


def _change(before: BreakerState | None, state: BreakerState) -> str:
    """Return the log event for a change to ``state``."""
    if before is not None and before.is_open == state.is_open:
        return "circuit reason changed"
    return "circuit opened" if state.is_open else "circuit throttled"
