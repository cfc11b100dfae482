"""Service 1, the scoring worker: contacts from the features topic come out scored, reviewed or rejected, exactly once.

One thread, the one that calls ``run``, owns the consumer, the producer, the dispatcher and the ledger. The pool's
threads only talk HTTP. No transaction is open during HTTP, sleep or poll: ``publish`` begins and ends it.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Literal

from stream_scorer.core.records import Contact, Partition, SourceRecord
from stream_scorer.core.retry_topics import NotDue
from stream_scorer.errors import ApiRefused, one_line

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable

    from stream_scorer.core.records import Deferred, Skipped
    from stream_scorer.kafka.consumer.flow_control import FlowControl
    from stream_scorer.kafka.consumer.group_consumer import GroupConsumer
    from stream_scorer.kafka.consumer.retry_partitions import PausedRetryPartitions
    from stream_scorer.kafka.registry.pending_schemas import PendingSchemas
    from stream_scorer.runtime.clock import Clock
    from stream_scorer.scoring.circuit_breaker import CircuitBreaker
    from stream_scorer.scoring.dispatcher import RequestDispatcher
    from stream_scorer.scoring.intake import Intake
    from stream_scorer.scoring.observer import Observer
    from stream_scorer.scoring.ports import OutcomeLedger, Quota, Trace
    from stream_scorer.scoring.publisher import Publisher
    from stream_scorer.scoring.retry_intake import RetryIntake

_READ_RECORDS = 1_000
_IDLE_WAIT_S = 0.05
_BUSY_WAIT_S = 0.005
# Pausing throws away what librdkafka has fetched ahead: for less than this, not reading is enough.
_PAUSE_AFTER_S = 1.0
_REOPEN_S = 1.0
_REPORT_EVERY_S = 0.2
_LAG_REPORT_EVERY_S = 1.0


class Worker:
    """The loop, and the books of the partitions it owns (``kafka.consumer.group_consumer.Owner``)."""

    def __init__(
        self,
        *,
        intake: Intake,
        dispatcher: RequestDispatcher,
        breaker: CircuitBreaker,
        quota: Quota,
        ledger: OutcomeLedger,
        clock: Clock,
        observe: Observer,
        trace: Trace,
        source: GroupConsumer,
        waits: PendingSchemas,
        flow: FlowControl,
        heads: PausedRetryPartitions,
        retries: RetryIntake,
        publisher: Publisher,
        stopping: threading.Event,
        session_timeout_s: float,
        revoke_wait_s: float,
        shutdown_timeout_s: float,
    ) -> None:
        self._intake = intake
        self._dispatcher = dispatcher
        self._breaker = breaker
        self._quota = quota
        self._ledger = ledger
        self._clock = clock
        self._observe = observe
        self._trace = trace
        self._session_timeout_s = session_timeout_s
        self._revoke_wait_s = revoke_wait_s
        self._shutdown_timeout_s = shutdown_timeout_s
        self._stopping = stopping
        self._source = source
        self._pending_schemas = waits
        self._flow = flow
        self._retry_partitions = heads
        self._retries = retries
        self._publisher = publisher
        self._read_at = 0.0
        self._looped_at = math.inf
        self._session_unsure_until = 0.0
        self._reported_at = self._lag_reported_at = 0.0
        self._deadline = math.inf
        self._found_work = False

    def run(self) -> None:
        """Works until ``stopping`` is set, then finishes what is in flight, commits and leaves the group.

        Raises:
            ApiRefused: the API refuses us for good; what was finished is committed.
            BrokerRefused: Kafka does.
            ProducerFenced: another running worker uses our transactional id.
        """
        while not self._publisher.open() and not self._stopping.wait(_REOPEN_S):
            self._observe.heartbeat()
        self._source.subscribe(self)
        try:
            while not self._stopping.is_set() and self._dispatcher.fatal_error is None:
                self._poll()
                self._detect_stall()
                if not self._session_may_be_lost:
                    self._dispatcher.send()
                self._dispatcher.poll_timers()
                self._dispatcher.handle_responses(self._wait_s())
                self._publisher.publish_due()
                self._report()
        finally:
            self._finish(sys.exception())
        if self._dispatcher.fatal_error is not None:
            raise ApiRefused(self._dispatcher.fatal_error)

    # --- the steps

    def _detect_stall(self) -> None:
        """Stop sending after a pause longer than the session: the partitions may belong to another worker by now."""
        now = self._clock.monotonic()
        if now - self._looped_at > self._session_timeout_s:
            self._session_unsure_until = now + self._session_timeout_s / 2  # a heartbeat is answered within
        self._looped_at = now

    @property
    def _session_may_be_lost(self) -> bool:
        return self._clock.monotonic() < self._session_unsure_until

    def _poll(self) -> None:
        """Topic → ledger → dispatcher."""
        now = self._clock.monotonic()
        self._pending_schemas.resume_resolved()
        self._retry_partitions.resume_due(self._clock.unix_ms())
        self._flow.resume_with_room()
        room = self._capacity()
        if room > 0:
            self._source.resume()
        elif now - self._read_at < _PAUSE_AFTER_S and not self._session_may_be_lost:
            self._found_work = False
            return
        else:
            self._source.pause()
        self._read_at = now
        idle = not (self._dispatcher.in_flight or self._dispatcher.batched or self._ledger.uncommitted)
        self._trace.polling()
        records = self._source.read(max(1, min(room, _READ_RECORDS)), _IDLE_WAIT_S if idle else 0.0)
        polled_s = self._clock.monotonic() - now
        now_ms = self._clock.unix_ms()
        entered = [self._admit(record, now_ms) for record in records]
        fresh = [one for one in entered if isinstance(one, SourceRecord)]
        admitted = sum(one is not None for one in entered)
        if admitted:
            self._observe.consumed(admitted, poll_s=polled_s)
        self._trace.polled(fresh)
        for record in fresh:
            examined = self._intake.examine(record, now_ms)
            if isinstance(examined, Contact):
                self._dispatcher.add(examined, now)
            else:
                self._ledger.finish(examined)
        self._found_work = bool(admitted)

    def _admit(self, record: SourceRecord, now_ms: int) -> SourceRecord | Literal[True] | None:
        """Enter a record in the ledger.

        Returns:
            The record if its outcome is still to be found; True if it is done with; None if it is delivered again.
        """
        # A partition is paused for one reason at a time: what was read behind its first paused record is read again.
        if (
            self._retry_partitions.is_paused(record)
            or self._pending_schemas.is_paused(record)
            or self._flow.is_paused(record)
        ):
            return None
        found: SourceRecord | Deferred | Skipped = record
        if record.topic in self._retries:
            examined = self._retries.examine(record, now_ms)
            if isinstance(examined, NotDue):
                if self._ledger.is_partition_assigned(Partition(record.topic, record.partition)):
                    self._retry_partitions.pause(record, examined.until_ms)
                return None
            found = examined
        if not self._flow.try_admit(record):
            return None
        if isinstance(found, SourceRecord):
            if not self._pending_schemas.admits(found):
                return None
            return found if self._ledger.read(found) else True
        if self._ledger.read(record):
            self._ledger.finish(found)
        return True

    def _capacity(self) -> int:
        """How many records may be read now. None during a hold, unless a probe takes other contacts."""
        waiting = self._dispatcher.waiting or self._dispatcher.batched
        if self._breaker.open_state is not None and waiting and not self._dispatcher.all_probed:
            return 0
        return self._flow.room()

    def _wait_s(self) -> float:
        """How long to wait for an answer: not at all while records flow, a little while there is nothing else to do."""
        return 0.0 if self._found_work else _BUSY_WAIT_S

    def _report(self) -> None:
        now = self._clock.monotonic()
        self._observe.heartbeat()
        if now - self._reported_at >= _REPORT_EVERY_S:
            self._reported_at = now
            self._observe.state(
                in_flight=self._dispatcher.in_flight,
                uncommitted=self._ledger.uncommitted,
                quota=self._quota,
                breaker=self._breaker.reported,
            )
        if now - self._lag_reported_at >= _LAG_REPORT_EVERY_S:
            self._lag_reported_at = now
            self._observe.lag_observed(
                self._ledger.commit_positions(), self._source.end_offsets(self._ledger.partitions)
            )

    def _finish(self, error: BaseException | None) -> None:
        """Waits for the answers that are under way, up to a limit, commits what is finished and leaves the group.

        ``error``: what ended the loop; None if ``stopping`` was set.
        """
        self._stopping.set()  # from here on the limit of an end counts, whatever its cause
        self._observe.draining(self._dispatcher.fatal_error if error is None else one_line(error))
        deadline = self._deadline = self._clock.monotonic() + self._shutdown_timeout_s
        try:
            self._source.pause()
            while self._clock.monotonic() < deadline and (
                self._dispatcher.in_flight or self._is_worth_waiting(deadline)
            ):
                self._source.read(1, 0.0)
                self._dispatcher.send(started_only=True)
                self._dispatcher.handle_responses(_IDLE_WAIT_S)
                self._publisher.publish_due()
                self._report()
            self._publish_all(deadline)
            self._observe.drained(self._dispatcher.contacts_in_flight + self._ledger.billed_uncommitted)
        finally:
            self._source.close()
            self._publisher.close()

    def _is_worth_waiting(self, deadline: float, partitions: Iterable[Partition] | None = None) -> bool:
        """Whether answers that are paid for stand behind a retry or a search: who reads them again buys them again."""
        return self._ledger.has_billed_outcome_blocked(partitions) and self._dispatcher.may_finish(deadline)

    def _publish_all(self, deadline: float) -> None:
        while self._ledger.has_committable() and self._clock.monotonic() < deadline:
            if self._publisher.publish():
                continue
            if self._publisher.is_stale:
                return  # the partitions are already assigned to another worker, which scores the rest
            self._dispatcher.handle_responses(_IDLE_WAIT_S)

    # --- ownership: what kafka.source.Owner asks for

    def on_assigned(self, partition: Partition, *, start_offset: int, next_offset: int) -> None:
        """An assignment begins."""
        self._session_unsure_until = 0.0
        self._ledger.assign(partition, start_offset=start_offset, next_offset=next_offset)
        self._observe.partition_assigned(partition, next_offset)

    def on_revoking(self, partitions: list[Partition]) -> None:
        """Waits up to ``revoke_wait_s`` for answers about these partitions and commits, so none is bought again."""
        deadline = min(self._clock.monotonic() + self._revoke_wait_s, self._deadline)
        self._publisher.on_rebalance()  # the rebalance that takes them has often ended a transaction that was under way
        wanted = set(partitions)
        while self._clock.monotonic() < deadline and (
            self._dispatcher.has_in_flight(wanted) or self._is_worth_waiting(deadline, partitions)
        ):
            self._dispatcher.send(started_only=True)
            self._dispatcher.handle_responses(_BUSY_WAIT_S)
        self._publish_all(deadline)

    def on_revoked(self, partitions: list[Partition]) -> None:
        """End an assignment: none of its outcomes may be published, and no more of its contacts are sent."""
        for partition in partitions:
            self._ledger.revoke(partition, self._dispatcher.requested_records(partition))
        self._pending_schemas.revoke(partitions)
        self._flow.revoke(partitions)
        self._retry_partitions.revoke(partitions)
        self._dispatcher.drop_unowned()
        self._trace.revoked(partitions)
        self._observe.partitions_revoked(partitions)

    def on_rebalance_completed(self) -> None:
        """The group has said what is ours."""
        self._observe.rebalance_completed()

    def on_disconnected(self, reason: str) -> None:
        """No broker can be reached, or none lets us in."""
        self._observe.disconnected(reason)
