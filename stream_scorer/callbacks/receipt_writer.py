"""Writer of delivery outcomes: one transaction with receipts, rejections, retries, and the offsets they finish."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.callbacks.output_records import rejected_by_broker_message
from stream_scorer.core.callbacks.retry_policy import Completed, DeferredDelivery, DeliveryOutcome, give_up
from stream_scorer.kafka.producer.records import Committed, RecordsRejected
from stream_scorer.runtime.output_writer import OutputWriter

if TYPE_CHECKING:
    from stream_scorer.callbacks.observer import DelivererObserver
    from stream_scorer.callbacks.output_records import CallbackEncoder
    from stream_scorer.callbacks.trace_headers import DelivererTrace
    from stream_scorer.core.exactly_once.offset_ledger import CommittableBatch, OffsetLedger
    from stream_scorer.core.records import Partition
    from stream_scorer.kafka.producer.committer import Committer
    from stream_scorer.kafka.producer.records import OutRecord
    from stream_scorer.runtime.clock import Clock


class ReceiptWriter(OutputWriter[DeliveryOutcome]):
    """See the module docstring. Owned by the deliverer's thread.

    Args:
        committer: commits the transactions.
        ledger: offsets and outcomes.
        encoder: builds the records.
        clock: time.
        observe: log events and metrics.
        trace: spans of the deliveries.
        commit_interval_s: longest time between transactions while there is something to commit.
    """

    def __init__(
        self,
        *,
        committer: Committer[DeliveryOutcome],
        ledger: OffsetLedger[DeliveryOutcome],
        encoder: CallbackEncoder,
        clock: Clock,
        observe: DelivererObserver,
        trace: DelivererTrace,
        commit_interval_s: float,
    ) -> None:
        super().__init__(committer=committer, ledger=ledger, clock=clock, commit_interval_s=commit_interval_s)
        self._encoder = encoder
        self._observe = observe
        self._trace = trace

    def finish(self, outcome: DeliveryOutcome) -> None:
        """Record the outcome of a callback; it is written once all outcomes before it are known."""
        if isinstance(outcome, DeferredDelivery) and not self._encoder.fits(self._encoder.deferred(outcome)):
            outcome = give_up(outcome, "the callback is too large for its retry topic", self._clock.unix_ms())
        self._ledger.finish(outcome)

    def _write(self, batches: list[CommittableBatch[DeliveryOutcome]]) -> bool:
        outcomes = [outcome for batch in batches for outcome in batch.outcomes]
        records = [record for outcome in outcomes for record in self._records(outcome)]
        publication = self._committer.commit(
            batches, records, lambda committed: self._committed(committed, records=len(records))
        )
        if isinstance(publication, RecordsRejected):
            self._committer.suspend(rejected_by_broker_message(publication.errors, records))
        return isinstance(publication, Committed)

    def _committed(self, outcomes: list[DeliveryOutcome], *, records: int) -> None:
        if outcomes:
            self._observe.committed(outcomes, records=records)
            self._trace.committed(outcomes)

    def revoke(self, partitions: list[Partition]) -> None:
        """Drop pending outcomes of revoked partitions; the new owner writes them."""
        self._trace.revoked(partitions)

    def _records(self, outcome: DeliveryOutcome) -> list[OutRecord]:
        match outcome:
            case Completed():
                return self._encoder.completed(outcome)
            case DeferredDelivery():
                return [self._encoder.deferred(outcome)]
            case _:
                return [self._encoder.invalid(outcome)]
