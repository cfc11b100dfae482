"""Observer of a loop that reads a consumer group and commits transactions: log events, metrics, liveness, readiness.

The loop's thread calls it with sums, never once a record. The admin server's threads read it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

from stream_scorer.core.desk.progress import Progress, ReportKind
from stream_scorer.core.exactly_once.stall_detector import (
    NOTHING_READ,
    GroupMembership,
    StallDetector,
    liveness_failure,
)
from stream_scorer.kafka.producer.records import Committed, RecordsRejected
from stream_scorer.runtime import metric_definitions
from stream_scorer.runtime.metric_definitions import messaging

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from stream_scorer.core.desk.progress import Report
    from stream_scorer.core.exactly_once.stall_detector import CommitPosition, ConsumerLag
    from stream_scorer.core.records import Partition
    from stream_scorer.kafka.producer.records import Publication
    from stream_scorer.runtime.clock import Clock
    from stream_scorer.runtime.metric_definitions import Metrics

Cause: TypeAlias = Literal["kafka", "registry"]


class Log(Protocol):
    """The methods of a structlog logger that are used here."""

    def debug(self, event: str, **fields: Any) -> Any:
        """Log at level debug, for the search for one contact."""

    def info(self, event: str, **fields: Any) -> Any:
        """Log an event of normal operation."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Log an event that an operator may want to examine."""

    def error(self, event: str, **fields: Any) -> Any:
        """Log an event that an operator must act on."""


class Blockage(NamedTuple):
    """Why nothing can be published, or why records wait for a schema.

    Attributes:
        message: the latest failure.
        since: when it began, in monotonic seconds.
        since_ms: when it began, in Unix milliseconds.
    """

    message: str
    since: float
    since_ms: int


class LoopObserver(ABC):
    """Base class of the loops' observers.

    Args:
        log: receives the log events.
        metrics: receives the sums.
        clock: the time.
        standby_after_s: see `GroupMembership`.
        retry_topics: their partitions are assigned together with those of the input topic, and are not counted.

    Attributes:
        loop: name of the loop in log events, metrics and readiness; empty: the service has one loop.
        finished: outcomes that are reported, and count in the rate.
        others: outcomes that are reported, and do not count in the rate.
    """

    loop: ClassVar[str] = ""
    finished: ClassVar[Sequence[str]] = ()
    others: ClassVar[Sequence[str]] = ()

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
        self._of_loop = {"loop": self.loop} if self.loop else {}
        self._membership = GroupMembership(standby_after_s)
        self._retry_topics = frozenset(retry_topics)
        self._stall_detector = StallDetector()
        self._lag = NOTHING_READ
        self._blocked: dict[Cause, Blockage] = {}
        self._progress = Progress(self.finished, self.others, clock.monotonic())
        # Topics in which records wait until they are due: what is there is no backlog.
        self._waiting_topics = self._retry_topics
        self._inputs: set[Partition] = set()
        self._moved: Counter[str] = Counter()
        self._heartbeat_at = clock.monotonic()
        self._draining = False

    # --- the loop

    def heartbeat(self) -> None:
        """Record one iteration of the loop."""
        self._heartbeat_at = self._monotonic()

    def draining(self, reason: str | None) -> None:
        """Log that the loop is about to end; ``reason``: the error that ends it; None if it was stopped."""
        self._draining = True
        if reason is None:
            self._log.info("draining", **self._of_loop)
        else:
            # Logged before the worker leaves the group: that may take until the time-out that ends the process.
            self._log.warning("draining", **self._of_loop, detail=reason)

    def consumed(self, records: int, *, poll_s: float) -> None:
        """Count the records of a poll, with its duration."""
        self._metrics.add(metric_definitions.CONSUMED, records, self._of_loop)
        self._metrics.record(metric_definitions.OPERATION_DURATION, poll_s, messaging("poll", self._of_loop))

    def lag_observed(
        self, positions: Iterable[CommitPosition], ends: Mapping[Partition, int], *, explained: bool = False
    ) -> None:
        """Record the consumer lag, about once a second; see `StallDetector.observe`.

        ``explained``: whether records wait for a known reason. An unready loop has one.
        """
        explained = explained or self.readiness_failure() is not None
        before = self._lag
        self._lag = self._stall_detector.observe(
            positions, ends, self._monotonic(), self._clock.unix_ms(), explained=explained
        )
        self._measure_lag(self._lag, before)
        if self._membership.becomes_standby(self._monotonic()):
            self._log.info(
                "no partitions assigned", **self._of_loop, detail="the group has a member for every partition"
            )
        if (report := self._progress.observe(self._backlog, self._monotonic())) is not None:
            self._log_progress(report)

    def _finished(self, outcomes: Mapping[str, int]) -> None:
        """Add committed outcomes to the progress."""
        self._progress.add(outcomes, self._monotonic())

    @property
    def _backlog(self) -> int | None:
        """Number of uncommitted records of the input topic; None: an end offset is not known yet."""
        lags = [self._lag.lags.get(partition) for partition in self._inputs]
        known = [lag for lag in lags if lag is not None]
        return sum(known) if len(known) == len(lags) else None

    def ended(self) -> None:
        """Log the totals of the process."""
        self._log_progress(self._progress.totals(self._backlog, self._monotonic()))

    def _log_progress(self, report: Report) -> None:
        fields = self._progress_fields(report)
        if report.kind is ReportKind.PROGRESS:
            self._log.info("progress reported", **self._of_loop, **fields)
        elif report.kind is ReportKind.CAUGHT_UP:
            self._log.info("caught up", **self._of_loop, **fields)
        else:
            self._log.info("totals reported", **self._of_loop, **fields)

    @abstractmethod
    def _progress_fields(self, report: Report) -> dict[str, int | float | None]:
        """Return the fields of a report, in the order of its line on a terminal."""

    @property
    def lags(self) -> Mapping[tuple[str, int], int]:
        """Number of uncommitted records in the log, by topic and partition, as last observed."""
        return self._lag.lags

    def _measure_lag(self, lag: ConsumerLag, before: ConsumerLag) -> None:
        self._metrics.set(metric_definitions.OLDEST_AGE, lag.oldest_age_s, self._of_loop)
        self._metrics.set(metric_definitions.STALL_TIME, lag.stalled_s, self._of_loop)
        self._metrics.set(metric_definitions.UNEXPLAINED_STALL_TIME, lag.unexplained_s, self._of_loop)
        for topic, partition in (*lag.lags, *(before.lags.keys() - lag.lags.keys())):
            # The new owner of a revoked partition reports its lag; a stale value here would count it twice.
            amount = lag.lags.get((topic, partition), 0)
            self._metrics.set(
                metric_definitions.LAG, amount, {"topic": topic, "partition": str(partition), **self._of_loop}
            )

    # --- the group

    def partition_assigned(self, partition: Partition, next_offset: int) -> None:
        """Record and log an assigned partition."""
        if partition.topic not in self._retry_topics:
            self._membership.assigned(partition)
            self._membership_changed()
        if partition.topic not in self._waiting_topics:
            self._inputs.add(partition)
            self._moved["assigned"] += 1
        self._metrics.set(metric_definitions.PARTITIONS, self._membership.owned, self._of_loop)
        self._log.info(
            "partition assigned",
            **self._of_loop,
            topic=partition.topic,
            partition=partition.number,
            offset=next_offset,
        )

    def partitions_revoked(self, partitions: Iterable[Partition]) -> None:
        """Record and log revoked partitions."""
        revoked = list(partitions)
        self._membership.revoked(revoked)
        self._membership_changed()
        self._moved["revoked"] += len(self._inputs.intersection(revoked))
        self._inputs.difference_update(revoked)
        self._metrics.set(metric_definitions.PARTITIONS, self._membership.owned, self._of_loop)
        for partition in revoked:
            self._log.info("partition revoked", **self._of_loop, topic=partition.topic, partition=partition.number)

    def rebalance_completed(self) -> None:
        """Record the end of a rebalance, and log it if partitions of the input topic have moved."""
        self._membership.rebalanced(self._monotonic())
        self._membership_changed()
        if any(self._moved.values()):
            self._log.info(
                "rebalance completed",
                **self._of_loop,
                assigned=self._moved["assigned"],
                revoked=self._moved["revoked"],
                partitions=len(self._inputs),
            )
            self._moved.clear()

    def disconnected(self, reason: str) -> None:
        """Record that no broker can be reached or none grants access; the next group event ends that state."""
        self._membership.disconnected(reason)
        self._membership_changed()

    def _membership_changed(self) -> None:  # noqa: B027 - the scoring worker has none
        """Set the service's gauges that depend on the group."""

    # --- transactions and schemas

    def transaction(self, publication: Publication) -> None:
        """Record the end of a transaction."""
        match publication:
            case Committed(send_s, commit_s):
                outcome = "committed"
                self._metrics.record(metric_definitions.OPERATION_DURATION, send_s, messaging("send", self._of_loop))
                self._metrics.record(
                    metric_definitions.OPERATION_DURATION, commit_s, messaging("commit", self._of_loop)
                )
            case RecordsRejected(errors):
                outcome = "refused"
                self._log.warning(
                    "records rejected by broker",
                    **self._of_loop,
                    records=len(errors),
                    detail=next(iter(errors.values())),
                )
            case _:
                outcome = "failed"
        self._metrics.add(metric_definitions.TRANSACTIONS, 1, {"outcome": outcome, **self._of_loop})

    def commit_blocked(self, message: str | None) -> None:
        """Record that nothing can be published, or that this state has ended (None)."""
        before = self._block("kafka", message)
        if message is None:
            self._log.info("transactions recovered", **self._of_loop, after=before)
        elif message != before:
            self._log.warning("transaction failed", **self._of_loop, detail=message)

    def schemas_pending(self, reason: str | None) -> None:
        """Record why records wait for their writers' schemas; None: none waits any more."""
        before = self._block("registry", reason)
        if reason is None:
            self._log.info("schema registry recovered", **self._of_loop, after=before)
        else:
            self._log.warning("schema registry unavailable", **self._of_loop, detail=reason)

    def _block(self, cause: Cause, message: str | None) -> str | None:
        """Record a blockage or its end (None). Return the message before."""
        before = self._blocked.get(cause)
        if message is None:
            self._blocked.pop(cause, None)
        elif before is None:
            self._blocked[cause] = Blockage(message, self._monotonic(), self._clock.unix_ms())
        else:
            self._blocked[cause] = before._replace(message=message)
        self._blockage_changed(cause, is_blocked=message is not None)
        return None if before is None else before.message

    @abstractmethod
    def _blockage_changed(self, cause: Cause, *, is_blocked: bool) -> None:
        """Set the service's gauge."""

    # --- for /livez and /readyz

    def liveness_failure(self, still_limit_s: float, wait_limit_s: float) -> str | None:
        """Return why the process should be restarted; None if it should not.

        Args:
            still_limit_s: how long the loop may stand still.
            wait_limit_s: how long an event may wait without a known reason.
        """
        return self._named(
            liveness_failure(
                self._monotonic() - self._heartbeat_at, self._lag.unexplained_s, still_limit_s, wait_limit_s
            )
        )

    def readiness_failure(self) -> str | None:
        """Return why the loop makes no progress now; None if it does."""
        return self._named("draining" if self._draining else self._not_ready())

    def readiness_notes(self) -> Sequence[str]:
        """Return what waits although the loop makes progress, one line each."""
        return ()

    def _not_ready(self) -> str | None:
        """Return why the loop makes no progress; None if it does, or drains."""
        if (kafka := self._blocked.get("kafka")) is not None:
            return f"kafka: {kafka.message}"
        if (no_partition := self._membership.unready_reason()) is not None:
            return no_partition
        if (registry := self._blocked.get("registry")) is not None:
            return f"registry: {registry.message}"
        return None

    def _named(self, reason: str | None) -> str | None:
        return f"{self.loop}: {reason}" if self.loop and reason is not None else reason
