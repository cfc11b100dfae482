"""Writer of callbacks: one transaction with the callbacks of the scores read, and the offsets of the scores."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from stream_scorer.callbacks.output_records import rejected_by_broker_message
from stream_scorer.core.callbacks.selection import Examined, Selected, plan_callbacks
from stream_scorer.kafka.producer.records import Committed, RecordsRejected
from stream_scorer.runtime.output_writer import OutputWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.callbacks.observer import PlannerObserver
    from stream_scorer.callbacks.output_records import CallbackEncoder
    from stream_scorer.callbacks.ports import Target
    from stream_scorer.callbacks.trace_headers import PlannerTrace
    from stream_scorer.core.callbacks.selection import Plan, PlanningRules
    from stream_scorer.core.exactly_once.offset_ledger import CommittableBatch, OffsetLedger
    from stream_scorer.kafka.producer.committer import Committer
    from stream_scorer.runtime.clock import Clock


class CallbackWriter(OutputWriter[Examined]):
    """See the module docstring. Owned by the planner's thread.

    Args:
        committer: commits the transactions.
        ledger: offsets and outcomes.
        target: builds the bodies.
        encoder: builds the records.
        rules: returns the present rules; the topics' limits may change.
        clock: time.
        observe: log events and metrics.
        trace: propagates the trace contexts of the scores.
        linger_s: the longest time between reading a score and writing its callback.
    """

    def __init__(
        self,
        *,
        committer: Committer[Examined],
        ledger: OffsetLedger[Examined],
        target: Target,
        encoder: CallbackEncoder,
        rules: Callable[[], PlanningRules],
        clock: Clock,
        observe: PlannerObserver,
        trace: PlannerTrace,
        linger_s: float,
    ) -> None:
        super().__init__(committer=committer, ledger=ledger, clock=clock, commit_interval_s=linger_s)
        self._target = target
        self._encoder = encoder
        self._rules = rules
        self._observe = observe
        self._trace = trace
        self._first_read_at: float | None = None
        self._sizes: Counter[tuple[str | None, str]] = Counter()

    @property
    def is_full(self) -> bool:
        """Whether the scores read fill one transaction."""
        ledger, bounds = self._ledger, self._committer.bounds
        return ledger.uncommitted >= bounds.outcomes or ledger.uncommitted_bytes >= bounds.bytes

    def add(self, examined: Examined) -> None:
        """Record the outcome of a score that was read."""
        self._ledger.finish(examined)
        if isinstance(examined, Selected):
            self._sizes[examined.score.campaign_id, examined.score.model_id] += 1

    def _is_due(self) -> bool:
        """Return whether a callback or a transaction is full, or the first score has lingered long enough."""
        now = self._clock.monotonic()
        if not self._ledger.has_committable():
            self._first_read_at = None
            self._sizes.clear()
            return self._committer.renewal_due
        if self._first_read_at is None:
            self._first_read_at = now
        return (
            now - self._first_read_at >= self._commit_interval_s
            or self.is_full
            or any(size >= self._rules().max_contacts for size in self._sizes.values())
        )

    def _write(self, batches: list[CommittableBatch[Examined]]) -> bool:
        examined = [outcome for batch in batches for outcome in batch.outcomes]
        plan = plan_callbacks(examined, writer=self._target, rules=self._rules(), now_ms=self._clock.unix_ms())
        traces = self._trace.planning(plan.callbacks, examined)
        records = [self._encoder.planned(one, traces.get(one.callback_id, [])) for one in plan.callbacks]
        ended = self._trace.expiring(plan.expired, examined)
        records += [self._encoder.expired(one, ended.get(one.callback_id, [])) for one in plan.expired]
        records += [self._encoder.invalid(unusable) for unusable in plan.unusable]
        publication = self._committer.commit(batches, records, lambda done: self._planned(done, plan, len(records)))
        self._trace.planned(committed=isinstance(publication, Committed))
        if isinstance(publication, RecordsRejected):
            self._committer.suspend(rejected_by_broker_message(publication.errors, records))
        return isinstance(publication, Committed)

    def _planned(self, examined: list[Examined], plan: Plan, records: int) -> None:
        if not examined:
            return  # the transaction only moved commits
        took_s = 0.0 if self._first_read_at is None else self._clock.monotonic() - self._first_read_at
        self._observe.planned(plan, records=records, took_s=took_s)
