"""Planner, the first loop: scores at or over the threshold become callbacks, in one transaction with their offsets.

The thread that calls ``run`` owns the consumer, the producer and the ledger. A score has its outcome when it is read.
So all scores read are planned together, after ``linger_s`` at the latest.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Protocol

from stream_scorer.callbacks.output_records import rejected_by_broker_message
from stream_scorer.core.callbacks.selection import Examined, Selected, examine, plan_callbacks
from stream_scorer.errors import one_line
from stream_scorer.kafka.producer.records import Committed, RecordsRejected

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Mapping

    from stream_scorer.callbacks.observer import PlannerObserver
    from stream_scorer.callbacks.output_records import CallbackEncoder
    from stream_scorer.callbacks.ports import Target
    from stream_scorer.callbacks.trace_headers import PlannerTrace
    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.callbacks.selection import Plan, PlanningRules
    from stream_scorer.core.exactly_once.offset_ledger import OffsetLedger
    from stream_scorer.core.records import Partition, SourceRecord
    from stream_scorer.kafka.consumer.group_consumer import RebalanceListener
    from stream_scorer.kafka.producer.committer import Committer
    from stream_scorer.kafka.registry.pending_schemas import PendingSchemas
    from stream_scorer.runtime.clock import Clock

_MAX_RECORDS = 2_000
_READ_WAIT_S = 0.05
_REOPEN_S = 1.0
_LAG_REPORT_EVERY_S = 1.0


class PlanSource(Protocol):
    """The methods of the consumer that are used here; see ``kafka.consumer.group_consumer.GroupConsumer``."""

    def subscribe(self, owner: RebalanceListener) -> None:
        """Join the group."""

    def read(self, max_records: int, wait_s: float) -> list[SourceRecord]:
        """Return the next records."""

    def pause(self) -> None:
        """Pause all partitions."""

    def resume(self) -> None:
        """Resume all partitions."""

    def end_offsets(self, partitions: Iterable[Partition]) -> Mapping[Partition, int]:
        """Return the offset behind each partition's last record, where it is known."""

    def close(self) -> None:
        """Leave the group."""


class Planner:
    """Loop of the planner, and its ``kafka.consumer.group_consumer.RebalanceListener``.

    Args:
        source: consumer of the scores.
        pending_schemas: partitions paused for a schema that is still to be fetched.
        committer: commits the transactions.
        ledger: offsets and outcomes.
        codec: decodes ``ContactScore``.
        target: builds the bodies.
        encoder: builds the records.
        rules: returns the present rules; the topics' limits may change.
        clock: time.
        observe: log events and metrics.
        trace: propagates the trace contexts of the scores.
        stopping: set to end the loop.
        linger_s: the longest time between reading a score and writing its callback.
    """

    def __init__(
        self,
        *,
        source: PlanSource,
        pending_schemas: PendingSchemas,
        committer: Committer[Examined],
        ledger: OffsetLedger[Examined],
        codec: Codec,
        target: Target,
        encoder: CallbackEncoder,
        rules: Callable[[], PlanningRules],
        clock: Clock,
        observe: PlannerObserver,
        trace: PlannerTrace,
        stopping: threading.Event,
        linger_s: float,
    ) -> None:
        self._source = source
        self._pending_schemas = pending_schemas
        self._committer = committer
        self._ledger = ledger
        self._codec = codec
        self._target = target
        self._encoder = encoder
        self._rules = rules
        self._clock = clock
        self._observe = observe
        self._trace = trace
        self._stopping = stopping
        self._linger_s = linger_s
        self._since: float | None = None
        self._lag_reported_at = 0.0
        self._sizes: Counter[tuple[str | None, str]] = Counter()

    def run(self) -> None:
        """Run until ``stopping`` is set, then write the callbacks of the scores read and leave the group.

        Raises:
            BrokerRefused: Kafka refuses the client permanently.
            ProducerFenced: another running worker uses the same transactional id.
        """
        while not self._committer.ensure_session() and not self._stopping.wait(_REOPEN_S):
            self._observe.heartbeat()
        self._source.subscribe(self)
        try:
            while not self._stopping.is_set():
                self._poll()
                if self._is_due():
                    self._write()
                self._report()
            self._write()
        finally:
            error = sys.exception()
            self._stopping.set()  # from here on the shutdown time-out applies, and the deliverer ends as well
            self._observe.draining(None if error is None else one_line(error))
            self._source.close()
            self._committer.close()

    # --- the steps

    def _poll(self) -> None:
        """Read records into the ledger, each with its outcome."""
        self._pending_schemas.resume_resolved()
        room = 0 if self._is_full else _MAX_RECORDS - self._ledger.uncommitted
        (self._source.resume if room > 0 else self._source.pause)()
        began_at = self._clock.monotonic()
        records = self._source.read(max(room, 1), _READ_WAIT_S)
        if records:
            self._observe.consumed(len(records), poll_s=self._clock.monotonic() - began_at)
        now_ms, rules = self._clock.unix_ms(), self._rules()
        for record in records:
            if not (self._pending_schemas.admits(record) and self._ledger.read(record)):
                continue
            one = examine(record, codec=self._codec, writer=self._target, rules=rules, now_ms=now_ms)
            self._ledger.finish(one)
            if isinstance(one, Selected):
                self._sizes[one.score.campaign_id, one.score.model_id] += 1
        if self._since is None and self._ledger.uncommitted:
            self._since = self._clock.monotonic()

    @property
    def _is_full(self) -> bool:
        """Whether the records read fill one transaction."""
        ledger, bounds = self._ledger, self._committer.bounds
        return ledger.uncommitted >= min(_MAX_RECORDS, bounds.outcomes) or ledger.uncommitted_bytes >= bounds.bytes

    def _is_due(self) -> bool:
        """Return whether a callback or a transaction is full, or the first score has lingered long enough."""
        if not self._committer.can_attempt:
            return False
        if self._committer.last_error is not None:
            return True
        if self._since is None:
            return False
        return (
            self._clock.monotonic() - self._since >= self._linger_s
            or self._is_full
            or any(size >= self._rules().max_contacts for size in self._sizes.values())
        )

    def _write(self) -> None:
        """Write the callbacks of all scores read, in one transaction as far as its bounds allow."""
        if not self._committer.ensure_session():
            return
        batches = self._committer.batches()
        if batches:
            examined = [outcome for batch in batches for outcome in batch.outcomes]
            made = plan_callbacks(examined, writer=self._target, rules=self._rules(), now_ms=self._clock.unix_ms())
            traces = self._trace.planning(made.callbacks, examined)
            records = [self._encoder.planned(one, traces.get(one.callback_id, [])) for one in made.callbacks]
            ended = self._trace.expiring(made.expired, examined)
            records += [self._encoder.expired(one, ended.get(one.callback_id, [])) for one in made.expired]
            records += [self._encoder.invalid(unusable) for unusable in made.unusable]
            publication = self._committer.commit(batches, records, lambda _: self._planned(made, records=len(records)))
            self._trace.planned(committed=isinstance(publication, Committed))
            if isinstance(publication, RecordsRejected):
                self._committer.suspend(rejected_by_broker_message(publication.errors, records))
            if not isinstance(publication, Committed):
                return
        if self._ledger.has_committable():
            return  # the rest has lingered as long
        self._since = None
        self._sizes.clear()

    def _planned(self, made: Plan, *, records: int) -> None:
        took_s = 0.0 if self._since is None else self._clock.monotonic() - self._since
        self._observe.planned(made, records=records, took_s=took_s)

    def _report(self) -> None:
        now = self._clock.monotonic()
        self._observe.heartbeat()
        if now - self._lag_reported_at >= _LAG_REPORT_EVERY_S:
            self._lag_reported_at = now
            ends = self._source.end_offsets(self._ledger.partitions)
            self._observe.lag_observed(self._ledger.commit_positions(), ends, self._clock.unix_ms())

    # --- RebalanceListener

    def on_assigned(self, partition: Partition, *, start_offset: int, next_offset: int) -> None:
        """Start an assignment."""
        self._ledger.assign(partition, start_offset=start_offset, next_offset=next_offset)
        self._observe.partition_assigned(partition, next_offset)

    def on_revoking(self, partitions: list[Partition]) -> None:
        """Do nothing: scores without a committed plan are planned by the next owner."""

    def on_revoked(self, partitions: list[Partition]) -> None:
        """End an assignment: none of its outcomes may be written any more."""
        for partition in partitions:
            self._ledger.revoke(partition)
        self._pending_schemas.revoke(partitions)
        self._observe.partitions_revoked(partitions)

    def on_rebalance_completed(self) -> None:
        """Record the end of a rebalance."""
        self._observe.rebalance_completed()

    def on_disconnected(self, reason: str) -> None:
        """Record that no broker can be reached or none grants access."""
        self._observe.disconnected(reason)
