"""Scoring worker (service 1): every contact of the features topic is scored, reviewed or rejected, exactly once.

The thread that calls ``run`` owns the consumer, the producer, the dispatcher and the ledger. The pool's threads only
send HTTP requests. No transaction is open during HTTP, sleep or poll: ``publisher`` begins and ends it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from stream_scorer.core.records import Partition, SourceRecord
from stream_scorer.core.retry_topics import NotDue
from stream_scorer.core.scoring.types import Contact, Outcome, Skipped
from stream_scorer.errors import ApiRefused
from stream_scorer.runtime.service_loop import BUSY_WAIT_S, IDLE_WAIT_S, ServiceLoop
from stream_scorer.scoring.observer import Observer

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable

    from stream_scorer.core.scoring.types import Deferred
    from stream_scorer.kafka.consumer.flow_control import FlowControl
    from stream_scorer.kafka.consumer.group_consumer import GroupConsumer
    from stream_scorer.kafka.consumer.paused_retry_partitions import PausedRetryPartitions
    from stream_scorer.kafka.registry.paused_schema_partitions import PausedSchemaPartitions
    from stream_scorer.runtime.clock import Clock
    from stream_scorer.scoring.circuit_breaker import CircuitBreaker
    from stream_scorer.scoring.dispatcher import RequestDispatcher
    from stream_scorer.scoring.intake import Intake
    from stream_scorer.scoring.ports import OutcomeLedger, Quota, Trace
    from stream_scorer.scoring.publisher import Publisher
    from stream_scorer.scoring.retry_intake import RetryIntake

_READ_RECORDS = 1_000
# The share of the limit that is worth a transaction before the interval ends. A part of its cost does not depend on its
# size, so smaller ones would take more time than the reads gain.
_EARLY_COMMIT_SHARE = 0.25


class Worker(ServiceLoop[Outcome | Skipped, Observer]):
    """Loop of the scoring worker; see ``runtime.service_loop`` for its beginning, its end, and rebalances."""

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
        pending_schemas: PausedSchemaPartitions,
        flow: FlowControl,
        retry_partitions: PausedRetryPartitions,
        retries: RetryIntake,
        publisher: Publisher,
        stopping: threading.Event,
        session_timeout_s: float,
        revoke_wait_s: float,
        shutdown_timeout_s: float,
    ) -> None:
        super().__init__(
            source=source,
            ledger=ledger,
            writer=publisher,
            paused=(pending_schemas, flow, retry_partitions),
            clock=clock,
            observe=observe,
            stopping=stopping,
            revoke_wait_s=revoke_wait_s,
            shutdown_timeout_s=shutdown_timeout_s,
        )
        self._intake = intake
        self._dispatcher = dispatcher
        self._breaker = breaker
        self._quota = quota
        self._trace = trace
        self._pending_schemas = pending_schemas
        self._flow = flow
        self._retry_partitions = retry_partitions
        self._retries = retries
        self._session_timeout_s = session_timeout_s
        self._looped_at = math.inf
        self._session_unsure_until = 0.0
        self._found_work = False

    def run(self) -> None:
        """Run until ``stopping`` is set, then finish the requests in flight, commit and leave the group.

        Raises:
            ApiRefused: the API refuses the client permanently; finished outcomes are committed.
            BrokerRefused: Kafka refuses the client permanently.
            ProducerFenced: another running worker uses the same transactional id.
        """
        super().run()
        if self._dispatcher.fatal_error is not None:
            raise ApiRefused(self._dispatcher.fatal_error)

    def _process(self) -> None:
        self._poll()
        self._detect_stall()
        if not self._session_may_be_lost:
            self._dispatcher.send()
        self._dispatcher.poll_timers()
        self._dispatcher.handle_responses(self._wait_s())
        self._commit_early()

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
        """Read records into the ledger and hand their contacts to the dispatcher."""
        now = self._clock.monotonic()
        self._pending_schemas.resume_resolved()
        self._retry_partitions.resume_due(self._clock.unix_ms())
        self._flow.resume_with_room()
        idle = not (self._dispatcher.in_flight or self._dispatcher.batched or self._ledger.uncommitted)
        wait_s = IDLE_WAIT_S if idle else 0.0
        self._trace.polling()
        records = self._read(self._capacity(), _READ_RECORDS, wait_s, must_poll=self._session_may_be_lost)
        polled_s = self._clock.monotonic() - now
        now_ms = self._clock.unix_ms()
        fresh, admitted = self._admit(records, now_ms)
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

    def _commit_early(self) -> None:
        """Commit without waiting for the interval if partitions are paused for lack of room and nothing can be read.

        Otherwise the paused partitions would wait for the rest of the interval with slots free.
        """
        if self._found_work or not self._flow.is_blocking:
            return
        if self._ledger.committable_count() >= self._flow.max_records * _EARLY_COMMIT_SHARE:
            self._writer.flush()

    def _admit(self, records: Iterable[SourceRecord], now_ms: int) -> tuple[list[SourceRecord], int]:
        """Add records to the ledger; return those whose outcome is still to be found, and how many were admitted.

        A partition is paused for one reason at a time: records behind its first paused record are read again. The
        client delivers the records of a partition together, and only one that is not admitted pauses it. So pauses are
        checked where the partition changes and behind such a record, not for every record.
        """
        fresh: list[SourceRecord] = []
        topic, number, is_retry, may_be_paused = "", -1, False, False
        admitted = 0
        for record in records:
            if record.partition != number or record.topic != topic:
                topic, number = record.topic, record.partition
                is_retry, may_be_paused = topic in self._retries, any(self._paused)
            if may_be_paused and self._is_paused(record):
                continue
            found: SourceRecord | Deferred | Skipped | None = None
            if is_retry:
                found = self._examine_retry(record, now_ms)
            elif self._flow.try_admit(record) and self._pending_schemas.admits(record):
                found = record
            may_be_paused = found is None
            if found is None:
                continue
            admitted += 1
            if isinstance(found, SourceRecord):
                if self._ledger.read(found):
                    fresh.append(found)
            elif self._ledger.read(record):
                self._ledger.finish(found)
        return fresh, admitted

    def _is_paused(self, record: SourceRecord) -> bool:
        return (
            self._retry_partitions.is_paused(record)
            or self._pending_schemas.is_paused(record)
            or self._flow.is_paused(record)
        )

    def _examine_retry(self, record: SourceRecord, now_ms: int) -> SourceRecord | Deferred | Skipped | None:
        """Return a record of a retry topic with its origin, or its outcome; None if it is read again later."""
        found = self._retries.examine(record, now_ms)
        if isinstance(found, NotDue):
            if self._ledger.is_partition_assigned(Partition(record.topic, record.partition)):
                self._retry_partitions.pause(record, found.until_ms)
            return None
        if not self._flow.try_admit(record):
            return None
        if isinstance(found, SourceRecord) and not self._pending_schemas.admits(found):
            return None
        return found

    def _capacity(self) -> int:
        """Return how many records may be read now; 0 while the breaker is open, unless a probe needs other contacts."""
        waiting = self._dispatcher.waiting or self._dispatcher.batched
        if self._breaker.open_state is not None and waiting and not self._dispatcher.all_probed:
            return 0
        return self._flow.room()

    def _wait_s(self) -> float:
        """Return how long to wait for a response: 0 while records arrive, a little otherwise."""
        return 0.0 if self._found_work else BUSY_WAIT_S

    # --- the parts of the loop

    @property
    def _fatal_error(self) -> str | None:
        return self._dispatcher.fatal_error

    def _awaits_response(self, partitions: list[Partition] | None, deadline: float) -> bool:
        if self._dispatcher.in_flight if partitions is None else self._dispatcher.has_in_flight(set(partitions)):
            return True
        # Outcomes of requests wait behind a retry or bisection: the next owner would send their contacts again.
        return self._ledger.has_requested_outcome_blocked(partitions) and self._dispatcher.may_finish(deadline)

    def _send_started(self) -> None:
        self._dispatcher.send(started_only=True)

    def _handle_responses(self, wait_s: float) -> None:
        self._dispatcher.handle_responses(wait_s)

    def _requested(self, partition: Partition) -> Iterable[SourceRecord]:
        return self._dispatcher.requested_records(partition)

    def _on_revoked(self, partitions: list[Partition]) -> None:
        self._dispatcher.drop_unowned()
        self._trace.revoked(partitions)

    def _report_state(self) -> None:
        self._observe.state(
            in_flight=self._dispatcher.in_flight,
            uncommitted=self._ledger.uncommitted,
            quota=self._quota,
            breaker=self._breaker.reported,
        )

    def _on_drained(self) -> None:
        self._observe.drained(self._dispatcher.contacts_in_flight + self._ledger.requested_uncommitted)

    # --- RebalanceListener

    def on_assigned(self, partition: Partition, *, start_offset: int, next_offset: int) -> None:
        """Start an assignment: the session is alive."""
        self._session_unsure_until = 0.0
        super().on_assigned(partition, start_offset=start_offset, next_offset=next_offset)
