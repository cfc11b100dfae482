"""Deliverer, the second loop: callbacks are delivered; each gets a receipt in one transaction with its offset.

The thread that calls ``run`` owns the consumer, the producer, the ledger and all waiting deliveries. The pool's threads
only send HTTP requests. A callback's outcome is a receipt or its record in a retry topic. Outcomes of a partition are
committed in order, so a slow callback delays the receipts behind it, but no delivery.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from stream_scorer.core.callbacks.delivery_policy import Delivery
from stream_scorer.core.records import Partition
from stream_scorer.core.retry_topics import NotDue
from stream_scorer.errors import one_line

if TYPE_CHECKING:
    import threading

    from stream_scorer.callbacks.dispatcher import Dispatcher
    from stream_scorer.callbacks.intake import CallbackIntake
    from stream_scorer.callbacks.observer import DelivererObserver
    from stream_scorer.callbacks.receipt_writer import ReceiptWriter
    from stream_scorer.callbacks.sender import Sender
    from stream_scorer.core.callbacks.delivery_policy import DeliveryOutcome
    from stream_scorer.core.exactly_once.offset_ledger import OffsetLedger
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.kafka.consumer.flow_control import FlowControl
    from stream_scorer.kafka.consumer.group_consumer import GroupConsumer
    from stream_scorer.kafka.consumer.retry_partitions import PausedRetryPartitions
    from stream_scorer.kafka.registry.pending_schemas import PendingSchemas
    from stream_scorer.runtime.clock import Clock

_READ_RECORDS = 500
_IDLE_WAIT_S = 0.05
_BUSY_WAIT_S = 0.005
# Pausing discards the records that librdkafka has fetched ahead: for a shorter time, not reading is enough.
_PAUSE_AFTER_S = 1.0
_REOPEN_S = 1.0
_REPORT_EVERY_S = 0.2
_LAG_REPORT_EVERY_S = 1.0
_EVICT_EVERY_S = 30.0
# Above this share of the window a failing campaign may have only a few waiting callbacks.
_EVICT_ABOVE = 0.5
_FEW = 8


class Deliverer:
    """Loop of the deliverer, and its ``kafka.consumer.group_consumer.RebalanceListener``.

    Args:
        source: consumer of the callbacks topic and the retry topics.
        pending_schemas: partitions paused for a schema that is still to be fetched.
        flow: bounds the records that are read and not committed.
        ledger: offsets and outcomes.
        intake: decodes and routes records.
        retry_partitions: partitions of retry topics whose first record is not due.
        dispatcher: the waiting deliveries, for the metrics.
        sender: sends callbacks.
        receipts: writes their outcomes.
        clock: time.
        observe: log events and metrics.
        stopping: set to end the loop.
        revoke_wait_s: how long a revocation waits for requests in flight.
        shutdown_timeout_s: how long the shutdown waits for them.
    """

    def __init__(
        self,
        *,
        source: GroupConsumer,
        pending_schemas: PendingSchemas,
        flow: FlowControl,
        ledger: OffsetLedger[DeliveryOutcome],
        intake: CallbackIntake,
        retry_partitions: PausedRetryPartitions,
        dispatcher: Dispatcher,
        sender: Sender,
        receipts: ReceiptWriter,
        clock: Clock,
        observe: DelivererObserver,
        stopping: threading.Event,
        revoke_wait_s: float,
        shutdown_timeout_s: float,
    ) -> None:
        self._source = source
        self._pending_schemas = pending_schemas
        self._ledger = ledger
        self._intake = intake
        self._retry_partitions = retry_partitions
        self._dispatcher = dispatcher
        self._sender = sender
        self._receipts = receipts
        self._clock = clock
        self._observe = observe
        self._stopping = stopping
        self._flow = flow
        self._revoke_wait_s = revoke_wait_s
        self._shutdown_timeout_s = shutdown_timeout_s
        self._deadline = math.inf
        self._read_at = self._reported_at = self._lag_reported_at = self._evicted_at = 0.0
        self._found_work = False

    def run(self) -> None:
        """Run until ``stopping`` is set, then finish the requests in flight, commit and leave the group.

        Raises:
            BrokerRefused: Kafka refuses the client permanently.
            ProducerFenced: another running worker uses the same transactional id.
        """
        while not self._receipts.open() and not self._stopping.wait(_REOPEN_S):
            self._observe.heartbeat()
        self._source.subscribe(self)
        try:
            while not self._stopping.is_set():
                self._poll()
                self._sender.send()
                self._evict_degraded()
                self._sender.collect(0.0 if self._found_work else _BUSY_WAIT_S)
                self._receipts.flush_due()
                self._report()
        finally:
            self._finish(sys.exception())

    # --- the steps

    def _poll(self) -> None:
        """Read records into the ledger and hand their deliveries to the sender."""
        now = self._clock.monotonic()
        self._pending_schemas.resume_resolved()
        self._retry_partitions.resume_due(self._clock.unix_ms())
        self._flow.resume_with_room()
        self._found_work = False
        room = self._capacity()
        if room > 0:
            self._source.resume()
        elif now - self._read_at < _PAUSE_AFTER_S:
            return
        else:
            self._source.pause()
        self._read_at = now
        idle = not (self._sender.in_flight or self._ledger.uncommitted)
        records = self._source.read(max(1, min(room, _READ_RECORDS)), _IDLE_WAIT_S if idle else 0.0)
        if records:
            self._observe.consumed(len(records), poll_s=self._clock.monotonic() - now)
        for record in records:
            self._admit(record)
        self._found_work = bool(records)

    def _admit(self, record: SourceRecord) -> None:
        # In this order a partition is paused for one reason at a time.
        if self._retry_partitions.is_paused(record) or self._pending_schemas.is_paused(record):
            return
        if not (self._flow.try_admit(record) and self._pending_schemas.admits(record)):
            return
        examined = self._intake.examine(record, self._clock.unix_ms())
        if isinstance(examined, NotDue):
            if self._ledger.is_partition_assigned(Partition(record.topic, record.partition)):
                self._retry_partitions.pause(record, examined.until_ms)
        elif self._ledger.read(record):
            if isinstance(examined, Delivery):
                self._sender.add(examined)
            else:
                self._receipts.finish(examined)

    def _capacity(self) -> int:
        """Return how many records may be read now; while the breaker is open, one if there is none to probe with."""
        if self._sender.is_breaker_open:
            return 0 if self._ledger.uncommitted else 1
        return self._flow.room()

    def _evict_degraded(self) -> None:
        """Keep failing campaigns from filling the window; nothing is evicted while half of it is free."""
        if self._sender.is_breaker_open:
            return
        if self._flow.is_blocking:
            self._sender.evict(0)
        elif self._flow.used > _EVICT_ABOVE:
            self._sender.evict(_FEW)

    def _report(self) -> None:
        now = self._clock.monotonic()
        self._observe.heartbeat()
        if now - self._reported_at >= _REPORT_EVERY_S:
            self._reported_at = now
            waiting = {
                "slot": self._dispatcher.ready,
                "retry": self._dispatcher.delayed,
                "retry_topic": len(self._retry_partitions),
            }
            self._observe.state(in_flight=self._sender.in_flight, waiting=waiting, uncommitted=self._ledger.uncommitted)
        if now - self._lag_reported_at >= _LAG_REPORT_EVERY_S:
            self._lag_reported_at = now
            # Deliveries in memory wait for a known time or for a slot.
            explained = bool(self._dispatcher.ready or self._dispatcher.delayed)
            ends = self._source.end_offsets(self._ledger.partitions)
            self._observe.lag_observed(
                self._ledger.commit_positions(), ends, self._clock.unix_ms(), explained=explained
            )
        if now - self._evicted_at >= _EVICT_EVERY_S:
            self._evicted_at = now
            self._dispatcher.evict_idle(now)

    def _finish(self, error: BaseException | None) -> None:
        """Wait up to a limit for the requests in flight, commit the finished outcomes and leave the group.

        ``error``: what ended the loop; None if ``stopping`` was set.
        """
        self._stopping.set()  # from here on the shutdown time-out applies, and the planner ends as well
        self._observe.draining(None if error is None else one_line(error))
        deadline = self._deadline = self._clock.monotonic() + self._shutdown_timeout_s
        try:
            self._source.pause()
            while self._sender.in_flight and self._clock.monotonic() < deadline:
                self._source.read(1, 0.0)
                self._sender.collect(_IDLE_WAIT_S)
                self._receipts.flush_due()
                self._report()
            self._flush_all(deadline)
        finally:
            self._source.close()
            self._receipts.close()

    def _flush_all(self, deadline: float) -> None:
        while self._ledger.has_committable() and self._clock.monotonic() < deadline:
            if self._receipts.flush():
                continue
            if self._receipts.is_stale:
                return  # the partitions are already assigned to another worker, which delivers the rest
            self._sender.collect(_IDLE_WAIT_S)

    # --- RebalanceListener

    def on_assigned(self, partition: Partition, *, start_offset: int, next_offset: int) -> None:
        """Start an assignment."""
        self._ledger.assign(partition, start_offset=start_offset, next_offset=next_offset)
        self._observe.partition_assigned(partition, next_offset)

    def on_revoking(self, partitions: list[Partition]) -> None:
        """Wait up to ``revoke_wait_s`` for requests of these partitions and commit, so that none is repeated."""
        deadline = min(self._clock.monotonic() + self._revoke_wait_s, self._deadline)
        self._receipts.on_rebalance()  # the rebalance has often aborted a transaction that was open
        while self._sender.is_sending(partitions) and self._clock.monotonic() < deadline:
            self._sender.collect(_BUSY_WAIT_S)
        self._flush_all(deadline)

    def on_revoked(self, partitions: list[Partition]) -> None:
        """End an assignment: none of its outcomes may be committed, and no more of its callbacks are sent."""
        for partition in partitions:
            self._ledger.revoke(partition, self._dispatcher.in_flight_records(partition))
        self._pending_schemas.revoke(partitions)
        self._retry_partitions.revoke(partitions)
        self._flow.revoke(partitions)
        self._sender.drop_unowned()
        self._receipts.revoke(partitions)
        self._observe.partitions_revoked(partitions)

    def on_rebalance_completed(self) -> None:
        """Record the end of a rebalance."""
        self._observe.rebalance_completed()

    def on_disconnected(self, reason: str) -> None:
        """Record that no broker can be reached or none grants access."""
        self._observe.disconnected(reason)
