"""Writer of a loop's outputs: one transaction with the records of committable outcomes and the offsets they finish."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic

from stream_scorer.core.exactly_once.outcome_cache import OutcomeT

if TYPE_CHECKING:
    from stream_scorer.core.exactly_once.offset_ledger import CommittableBatch, OffsetLedger
    from stream_scorer.kafka.producer.committer import Committer
    from stream_scorer.runtime.clock import Clock


class OutputWriter(ABC, Generic[OutcomeT]):
    """Base class of the writers: when a transaction is run. A subclass encodes its records. Owned by the loop's thread.

    Args:
        committer: commits the transactions.
        ledger: offsets and outcomes.
        clock: time.
        commit_interval_s: longest time between transactions while there is something to commit.
    """

    def __init__(
        self,
        *,
        committer: Committer[OutcomeT],
        ledger: OffsetLedger[OutcomeT],
        clock: Clock,
        commit_interval_s: float,
    ) -> None:
        self._committer = committer
        self._ledger = ledger
        self._clock = clock
        self._commit_interval_s = commit_interval_s
        self._written_at = 0.0

    @property
    def is_stale(self) -> bool:
        """Whether the group has rebalanced without this worker: another one owns the partitions."""
        return self._committer.is_stale

    def open(self) -> bool:
        """Open a producer session before there is anything to write. Return whether it is usable."""
        return self._committer.ensure_session()

    def on_rebalance(self) -> None:
        """Record a rebalance: commits that were refused for an older generation may be accepted now."""
        self._committer.on_rebalance()

    def flush_due(self) -> None:
        """Write the committable outcomes if their transaction is due."""
        if not self._committer.can_attempt:
            return
        self._committer.find_renewals()
        if self._committer.last_error is not None and not self._committer.ensure_session():
            return
        if self._is_due():
            self.flush()

    def flush(self) -> bool:
        """Write the committable outcomes now. Return whether that was possible.

        Raises:
            ProducerFenced: three times in five minutes another producer took over the transactional id.
        """
        self._committer.find_renewals()
        if not (self._ledger.has_committable() or self._committer.renewal_due):
            return True
        if not self._committer.can_attempt or not self._committer.ensure_session():
            return False
        batches = self._committer.batches()
        if not (batches or self._committer.renewal_due):
            return True  # the committed offsets have just resolved all outcomes
        if not self._write(batches):
            return False
        self._written_at = self._clock.monotonic()
        return True

    def close(self) -> None:
        """End the producer session and write nothing more."""
        self._committer.close()

    def _is_due(self) -> bool:
        waited_s = self._clock.monotonic() - self._written_at
        return waited_s >= self._commit_interval_s or self._committer.bounds.are_reduced

    @abstractmethod
    def _write(self, batches: list[CommittableBatch[OutcomeT]]) -> bool:
        """Run one transaction with these batches. Return whether it was committed."""
