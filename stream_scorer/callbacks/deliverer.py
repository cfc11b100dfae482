"""Deliverer, the second loop: callbacks are delivered; each gets a receipt in one transaction with its offset.

The thread that calls ``run`` owns the consumer, the producer, the ledger and all waiting deliveries. The pool's threads
only send HTTP requests. A callback's outcome is a receipt or its record in a retry topic. Outcomes of a partition are
committed in order, so a slow callback delays the receipts behind it, but no delivery.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from stream_scorer.callbacks.observer import DelivererObserver
from stream_scorer.core.callbacks.retry_policy import Delivery, DeliveryOutcome
from stream_scorer.core.records import Partition
from stream_scorer.core.retry_topics import NotDue
from stream_scorer.runtime.service_loop import BUSY_WAIT_S, IDLE_WAIT_S, ServiceLoop

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable

    from stream_scorer.callbacks.dispatcher import Dispatcher
    from stream_scorer.callbacks.intake import CallbackIntake
    from stream_scorer.callbacks.receipt_writer import ReceiptWriter
    from stream_scorer.callbacks.sender import Sender
    from stream_scorer.core.exactly_once.offset_ledger import OffsetLedger
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.kafka.consumer.flow_control import FlowControl
    from stream_scorer.kafka.consumer.group_consumer import GroupConsumer
    from stream_scorer.kafka.consumer.paused_retry_partitions import PausedRetryPartitions
    from stream_scorer.kafka.registry.paused_schema_partitions import PausedSchemaPartitions
    from stream_scorer.runtime.clock import Clock

_READ_RECORDS = 500
_STATE_EVERY_S = 1.0
_EVICT_EVERY_S = 30.0
# Above this share of the window a failing campaign may have only a few waiting callbacks.
_EVICT_ABOVE = 0.5
_FEW = 8


class _Assignment(NamedTuple):
    """Assignment of a partition: its Unix milliseconds, and the offset below which its former owner may have read."""

    at_ms: int
    read_below: int


class Deliverer(ServiceLoop[DeliveryOutcome, DelivererObserver]):
    """Loop of the deliverer; see ``runtime.service_loop`` for its beginning, its end, and rebalances.

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
        pending_schemas: PausedSchemaPartitions,
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
        super().__init__(
            source=source,
            ledger=ledger,
            writer=receipts,
            paused=(pending_schemas, retry_partitions, flow),
            clock=clock,
            observe=observe,
            stopping=stopping,
            revoke_wait_s=revoke_wait_s,
            shutdown_timeout_s=shutdown_timeout_s,
        )
        self._pending_schemas = pending_schemas
        self._flow = flow
        self._intake = intake
        self._retry_partitions = retry_partitions
        self._dispatcher = dispatcher
        self._sender = sender
        self._receipts = receipts
        self._evicted_at = 0.0
        self._state_reported_at = 0.0
        self._found_work = False
        self._assigned: dict[Partition, _Assignment] = {}
        # Of the first record of each retry partition that is not due: when its callback was planned.
        self._heads: dict[Partition, int] = {}

    def _process(self) -> None:
        self._poll()
        self._sender.send()
        self._evict()
        self._sender.collect(0.0 if self._found_work else BUSY_WAIT_S)

    # --- the steps

    def _poll(self) -> None:
        """Read records into the ledger and hand their deliveries to the sender."""
        now = self._clock.monotonic()
        self._pending_schemas.resume_resolved()
        self._retry_partitions.resume_due(self._clock.unix_ms())
        self._flow.resume_with_room()
        idle = not (self._sender.in_flight or self._ledger.uncommitted)
        records = self._read(self._flow.room(), _READ_RECORDS, IDLE_WAIT_S if idle else 0.0)
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
                self._heads[Partition(record.topic, record.partition)] = self._intake.planned_at_ms(record)
            return
        self._heads.pop(Partition(record.topic, record.partition), None)
        if self._ledger.read(record):
            if isinstance(examined, Delivery):
                self._sender.add(self._with_former_attempts(examined))
            else:
                self._receipts.finish(examined)

    def _with_former_attempts(self, delivery: Delivery) -> Delivery:
        """Mark a callback that a former owner of its partition may have sent without committing the response.

        Not one that was not due then, or is behind all records that an owner may hold uncommitted.
        """
        record = delivery.record
        assigned = self._assigned.get(Partition(record.topic, record.partition))
        if assigned is None or record.offset >= assigned.read_below:
            return delivery
        due_ms = max(record.timestamp_ms, delivery.callback.not_before_ms)
        return replace(delivery, may_be_repeat=True) if due_ms <= assigned.at_ms else delivery

    def _evict(self) -> None:
        """Drop idle campaigns, and keep failing ones from filling the window; below half of it, nothing is evicted."""
        now = self._clock.monotonic()
        if now - self._evicted_at >= _EVICT_EVERY_S:
            self._evicted_at = now
            self._sender.forget_idle()
        if self._flow.is_blocking:
            self._sender.evict(0)
        elif self._flow.used > _EVICT_ABOVE:
            self._sender.evict(_FEW)

    # --- the parts of the loop

    def _awaits_response(self, partitions: list[Partition] | None, deadline: float) -> bool:
        del deadline
        return bool(self._sender.in_flight) if partitions is None else self._sender.is_sending(partitions)

    def _handle_responses(self, wait_s: float) -> None:
        self._sender.collect(wait_s)

    def _requested(self, partition: Partition) -> Iterable[SourceRecord]:
        return self._dispatcher.in_flight_records(partition)

    def on_assigned(self, partition: Partition, *, start_offset: int, next_offset: int) -> None:
        """Start an assignment."""
        # Twice the limit, because each record may have a transaction marker behind it.
        read_below = next_offset + 2 * self._flow.max_records
        self._assigned[partition] = _Assignment(self._clock.unix_ms(), read_below)
        super().on_assigned(partition, start_offset=start_offset, next_offset=next_offset)

    def _on_revoked(self, partitions: list[Partition]) -> None:
        self._sender.drop_unowned()
        for partition in partitions:
            self._heads.pop(partition, None)
        self._receipts.revoke(partitions)

    def _report_state(self) -> None:
        now = self._clock.monotonic()
        if now - self._state_reported_at < _STATE_EVERY_S:  # it looks at every callback in memory
            return
        self._state_reported_at = now
        for campaign_id in self._dispatcher.recovered(now):
            self._observe.campaign_recovered(campaign_id)
        waiting = {
            "slot": self._dispatcher.ready,
            "retry": self._dispatcher.delayed,
            "retry_topic": len(self._retry_partitions),
            "probe": self._sender.probe_candidates,
        }
        self._sender.report_breakers()
        self._observe.state(in_flight=self._sender.in_flight, waiting=waiting, uncommitted=self._ledger.uncommitted)
        now_ms = self._clock.unix_ms()
        oldest_ms = min(self._sender.oldest_planned_ms(now_ms), *self._heads.values(), now_ms)
        self._observe.undelivered((now_ms - oldest_ms) / 1000, self._in_retry_topics())

    @property
    def _explains_stall(self) -> bool:
        # Deliveries in memory wait for a known time or for a slot.
        return bool(self._dispatcher.ready or self._dispatcher.delayed or self._sender.probe_candidates)

    def _in_retry_topics(self) -> dict[int, int]:
        """Return how many records each retry topic holds above the commits, by level."""
        waiting: Counter[int] = Counter()
        for (topic, _), lag in self._observe.lags.items():
            if level := self._intake.level(topic):
                waiting[level] += lag
        return waiting
