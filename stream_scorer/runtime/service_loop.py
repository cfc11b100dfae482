"""Loop of a service, the same for scoring worker, planner and deliverer: join, process, commit, report, drain, leave.

The thread that calls ``run`` owns the consumer, the producer and the ledger. The loop is its consumer's rebalance
listener. It never commits an outcome of a partition that was revoked, and it waits for responses before a revocation
and at the end, so that the next owner of a partition repeats as little as possible.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from stream_scorer.core.exactly_once.outcome_cache import OutcomeT
from stream_scorer.errors import one_line
from stream_scorer.runtime.loop_observer import LoopObserver

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Sequence

    from stream_scorer.core.exactly_once.offset_ledger import OffsetLedger
    from stream_scorer.core.records import Partition, SourceRecord
    from stream_scorer.kafka.consumer.group_consumer import GroupConsumer
    from stream_scorer.kafka.consumer.paused_partitions import PausedPartitions
    from stream_scorer.runtime.clock import Clock
    from stream_scorer.runtime.output_writer import OutputWriter

IDLE_WAIT_S: Final = 0.05
BUSY_WAIT_S: Final = 0.005
# Pausing discards the records that librdkafka has fetched ahead: for a shorter time, not reading is enough.
_PAUSE_AFTER_S = 1.0
_REOPEN_S = 1.0
_REPORT_EVERY_S = 0.2
_LAG_REPORT_EVERY_S = 1.0


ObserverT = TypeVar("ObserverT", bound=LoopObserver)


class ServiceLoop(ABC, Generic[OutcomeT, ObserverT]):
    """Base class of the loops, and their ``kafka.consumer.group_consumer.RebalanceListener``.

    Args:
        source: the consumer.
        ledger: offsets and outcomes.
        writer: commits the outcomes.
        paused: the sets of paused partitions of the consumer.
        clock: time.
        observe: log events and metrics.
        stopping: set to end the loop, and by the loop when it ends: from then on the shutdown time-out applies.
        revoke_wait_s: how long a revocation waits for requests in flight.
        shutdown_timeout_s: how long the shutdown waits for them.
    """

    def __init__(
        self,
        *,
        source: GroupConsumer,
        ledger: OffsetLedger[OutcomeT],
        writer: OutputWriter[OutcomeT],
        paused: Sequence[PausedPartitions[Any]],
        clock: Clock,
        observe: ObserverT,
        stopping: threading.Event,
        revoke_wait_s: float,
        shutdown_timeout_s: float,
    ) -> None:
        self._source = source
        self._ledger = ledger
        self._writer = writer
        self._paused = paused
        self._clock = clock
        self._observe = observe
        self._stopping = stopping
        self._revoke_wait_s = revoke_wait_s
        self._shutdown_timeout_s = shutdown_timeout_s
        self._deadline = math.inf
        self._read_at = self._reported_at = self._lag_reported_at = 0.0

    def run(self) -> None:
        """Run until ``stopping`` is set, then finish the requests in flight, commit and leave the group.

        Raises:
            BrokerRefused: Kafka refuses the client permanently.
            ProducerFenced: another running worker uses the same transactional id.
        """
        while not self._writer.open() and not self._stopping.wait(_REOPEN_S):
            self._observe.heartbeat()
        self._source.subscribe(self)
        try:
            while not self._stopping.is_set() and self._fatal_error is None:
                self._process()
                self._writer.flush_due()
                self._report()
        finally:
            self._finish(sys.exception())

    # --- what a service supplies

    @abstractmethod
    def _process(self) -> None:
        """Read records and bring them one step nearer to their outcomes."""

    @property
    def _fatal_error(self) -> str | None:
        """Why the loop has to end; None: it need not."""
        return None

    def _awaits_response(self, partitions: list[Partition] | None, deadline: float) -> bool:
        """Return whether it is worth waiting for responses about these partitions; None: about all."""
        del partitions, deadline
        return False

    def _send_started(self) -> None:
        """Send what finishes a request that has begun."""

    def _handle_responses(self, wait_s: float) -> None:
        """Handle the responses that have arrived, after a wait of up to ``wait_s`` for the first."""

    def _requested(self, partition: Partition) -> Iterable[SourceRecord]:
        """Return the records of a partition whose requests are in flight."""
        del partition
        return ()

    def _on_revoked(self, partitions: list[Partition]) -> None:
        """Drop the state of revoked partitions; their records are not in the ledger any more."""

    def _report_state(self) -> None:
        """Record the gauges, five times a second."""

    @property
    def _explains_stall(self) -> bool:
        """Whether records wait for a known reason."""
        return False

    def _on_drained(self) -> None:
        """Record what is left at the end."""

    # --- steps that services share

    def _read(self, room: int, max_records: int, wait_s: float, *, must_poll: bool = False) -> list[SourceRecord]:
        """Return the next records; none without room, by not reading for a short time and by pausing after it.

        Args:
            room: how many records may be read.
            max_records: the most records of one read.
            wait_s: how long to wait for the first one.
            must_poll: poll the consumer even without room, since it may have lost its partitions.
        """
        now = self._clock.monotonic()
        if room > 0:
            self._source.resume()
        elif now - self._read_at < _PAUSE_AFTER_S and not must_poll:
            return []
        else:
            self._source.pause()
        self._read_at = now
        return self._source.read(max(1, min(room, max_records)), wait_s)

    # --- report and end

    def _report(self) -> None:
        now = self._clock.monotonic()
        self._observe.heartbeat()
        if now - self._reported_at >= _REPORT_EVERY_S:
            self._reported_at = now
            self._report_state()
        if now - self._lag_reported_at >= _LAG_REPORT_EVERY_S:
            self._lag_reported_at = now
            ends = self._source.end_offsets(self._ledger.partitions)
            self._observe.lag_observed(self._ledger.commit_positions(), ends, explained=self._explains_stall)

    def _finish(self, error: BaseException | None) -> None:
        """Wait up to a limit for the requests in flight, commit the finished outcomes and leave the group.

        ``error``: what ended the loop; None if ``stopping`` was set.
        """
        self._stopping.set()
        self._observe.draining(self._fatal_error if error is None else one_line(error))
        deadline = self._deadline = self._clock.monotonic() + self._shutdown_timeout_s
        try:
            self._source.pause()
            while self._clock.monotonic() < deadline and self._awaits_response(None, deadline):
                self._source.read(1, 0.0)
                self._send_started()
                self._handle_responses(IDLE_WAIT_S)
                self._writer.flush_due()
                self._report()
            self._flush_all(deadline)
            self._on_drained()
        finally:
            self._observe.ended()
            self._source.close()
            self._writer.close()

    def _flush_all(self, deadline: float) -> None:
        while self._ledger.has_committable() and self._clock.monotonic() < deadline:
            if self._writer.flush():
                continue
            if self._writer.is_stale:
                return  # the partitions are already assigned to another worker, which does the rest
            self._handle_responses(IDLE_WAIT_S)

    # --- RebalanceListener

    def on_assigned(self, partition: Partition, *, start_offset: int, next_offset: int) -> None:
        """Start an assignment."""
        self._ledger.assign(partition, start_offset=start_offset, next_offset=next_offset)
        self._observe.partition_assigned(partition, next_offset)

    def on_revoking(self, partitions: list[Partition]) -> None:
        """Wait up to ``revoke_wait_s`` for responses about these partitions and commit, so that none is repeated."""
        deadline = min(self._clock.monotonic() + self._revoke_wait_s, self._deadline)
        self._writer.on_rebalance()  # the rebalance has often aborted a transaction that was open
        while self._clock.monotonic() < deadline and self._awaits_response(partitions, deadline):
            self._send_started()
            self._handle_responses(BUSY_WAIT_S)
            self._writer.flush_due()  # not only at the end: a slow response must not cost what is finished
        self._flush_all(deadline)

    def on_revoked(self, partitions: list[Partition]) -> None:
        """End an assignment: none of its outcomes may be committed, and no more of its requests are sent."""
        for partition in partitions:
            self._ledger.revoke(partition, self._requested(partition))
        for paused in self._paused:
            paused.revoke(partitions)
        self._on_revoked(partitions)
        self._observe.partitions_revoked(partitions)

    def on_rebalance_completed(self) -> None:
        """Record the end of a rebalance."""
        self._observe.rebalance_completed()

    def on_disconnected(self, reason: str) -> None:
        """Record that no broker can be reached or none grants access."""
        self._observe.disconnected(reason)
