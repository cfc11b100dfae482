"""The first loop: scores at or over the threshold become callbacks, each in one transaction with its scores' offsets.

One thread, the one that calls ``run``, owns the consumer, the producer and the ledger. Nothing waits here for anybody:
a score's outcome is known when it is read, so all that is read is planned together, after ``linger_s`` at the latest.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Protocol

from stream_scorer.callbacks.output_records import rejected_by_broker_message
from stream_scorer.core.callbacks.selection import Examined, Selected, examine, plan_callbacks
from stream_scorer.core.exactly_once.stall_detector import is_below
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
    """What is needed of the consumer; see ``kafka.consumer.group_consumer.Source``."""

    def subscribe(self, owner: RebalanceListener) -> None:
        """Joins the group."""

    def read(self, max_records: int, wait_s: float) -> list[SourceRecord]:
        """Reads what is there."""

    def pause(self) -> None:
        """Delivers nothing."""

    def resume(self) -> None:
        """Delivers again."""

    def end_offsets(self, partitions: Iterable[Partition]) -> Mapping[Partition, int]:
        """The offset behind each partition's last record, where it is known."""

    def close(self) -> None:
        """Leaves the group."""


class Planner:
    """The loop, and the books of the partitions it owns (``kafka.consumer.group_consumer.Owner``).

    Args:
        source: the scores.
        waits: records whose schema is still to be fetched.
        committer: writes transactions.
        ledger: the books.
        codec: decodes ``ContactScore``.
        target: makes the bodies.
        encoder: makes the records.
        rules: what holds now; the topics' limits may change.
        clock: time.
        observe: log events and metrics.
        trace: hands the scores' traces on.
        stopping: is set when it shall end.
        linger_s: the longest time between reading a score and writing what it leads to.
    """

    def __init__(
        self,
        *,
        source: PlanSource,
        waits: PendingSchemas,
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
        self._pending_schemas = waits
        self._committer = committer
        committer.on_commit_resolved = self._resolved
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
        self._tried: tuple[list[Examined], Plan, int] | None = None
        self._sizes: Counter[tuple[str | None, str]] = Counter()

    def run(self) -> None:
        """Works until ``stopping`` is set, then writes what is read and leaves the group.

        Raises:
            BrokerRefused: Kafka refuses us.
            ProducerFenced: another running worker uses our transactional id.
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
            self._stopping.set()  # from here on the limit of an end counts, and the deliverer ends as well
            self._observe.draining(None if error is None else one_line(error))
            self._source.close()
            self._committer.close()

    # --- the steps

    def _poll(self) -> None:
        """Topic → ledger, each record with its outcome."""
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
        """Whether as much is read as one transaction takes at most."""
        ledger, bounds = self._ledger, self._committer.bounds
        return ledger.uncommitted >= min(_MAX_RECORDS, bounds.outcomes) or ledger.uncommitted_bytes >= bounds.bytes

    def _is_due(self) -> bool:
        """Whether a callback is full, as much is read as one transaction takes, or the first has waited long enough."""
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
        """Ledger → topics: everything that is read, in one transaction as far as its bounds allow."""
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
            self._tried = examined, made, len(records)
            publication = self._committer.commit(batches, records)
            self._trace.planned(committed=isinstance(publication, Committed))
            if isinstance(publication, RecordsRejected):
                self._committer.suspend(rejected_by_broker_message(publication.errors, records))
            if not isinstance(publication, Committed):
                return
            self._count()
        if self._ledger.has_committable():
            return  # the rest has waited as long
        self._since = None
        self._sizes.clear()

    def _resolved(self, offsets: Mapping[Partition, int]) -> None:
        """Count the last transaction if the offsets show that it was committed."""
        if self._tried is not None and any(is_below(offsets, one.record) for one in self._tried[0]):
            self._count()
        self._tried = None

    def _count(self) -> None:
        if self._tried is None:
            return
        _, made, records = self._tried
        took_s = 0.0 if self._since is None else self._clock.monotonic() - self._since
        self._observe.planned(made, records=records, took_s=took_s)
        self._tried = None

    def _report(self) -> None:
        now = self._clock.monotonic()
        self._observe.heartbeat()
        if now - self._lag_reported_at >= _LAG_REPORT_EVERY_S:
            self._lag_reported_at = now
            ends = self._source.end_offsets(self._ledger.partitions)
            self._observe.lag_observed(self._ledger.commit_positions(), ends, self._clock.unix_ms())

    # --- ownership: what kafka.source.Owner asks for

    def on_assigned(self, partition: Partition, *, start_offset: int, next_offset: int) -> None:
        """An assignment begins."""
        self._ledger.assign(partition, start_offset=start_offset, next_offset=next_offset)
        self._observe.partition_assigned(partition, next_offset)

    def on_revoking(self, partitions: list[Partition]) -> None:
        """Do nothing: scores without a committed plan are planned by the next owner."""

    def on_revoked(self, partitions: list[Partition]) -> None:
        """An assignment ends: nothing of it may be written any more."""
        for partition in partitions:
            self._ledger.revoke(partition)
        self._pending_schemas.revoke(partitions)
        self._observe.partitions_revoked(partitions)

    def on_rebalance_completed(self) -> None:
        """The group has said what is ours."""
        self._observe.rebalance_completed()

    def on_disconnected(self, reason: str) -> None:
        """No broker can be reached, or none lets us in."""
        self._observe.disconnected(reason)
