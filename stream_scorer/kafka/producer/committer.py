"""Committer of offsets together with output records, exactly once, with recovery after failures.

It opens producer sessions and refuses heads whose assignment has ended. It commits the offsets of the others with the
group's start and the topic's id. After a failure it creates a new producer, and the committed offsets decide the
outcome of the last transaction. No record is written while an earlier outcome is unknown. A transaction that failed
by time is repeated in smaller ones (``core.exactly_once.transaction_bounds``).

Commits on retry topics are renewed. The group is not subscribed to them (see ``kafka.consumer.retry_consumer``), so the
broker deletes a commit there once it is older than ``offsets.retention.minutes`` (7 days by default). Without it,
everything in the partition would be read again.

In a quiet partition the commit is moved behind the transaction markers at the end of the log. Otherwise it is below the
log's first offset once retention has deleted all records, and the next worker stops as if records were lost.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias

from confluent_kafka import TopicPartition

from stream_scorer.core.exactly_once.outcome_cache import OutcomeT
from stream_scorer.core.exactly_once.stall_detector import is_below
from stream_scorer.core.exactly_once.transaction_bounds import TransactionBounds
from stream_scorer.errors import BrokerRefused, BrokerUnavailable, ProducerFenced
from stream_scorer.kafka.producer.records import Committed, Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from stream_scorer.core.exactly_once.offset_ledger import CommittableBatch, OffsetLedger
    from stream_scorer.core.records import Partition
    from stream_scorer.kafka.consumer.group_consumer import GroupConsumer
    from stream_scorer.kafka.producer.records import OutRecord, Publication
    from stream_scorer.kafka.producer.sink import TransactionalSink

_FENCED_LIMIT = 3
_FENCED_WINDOW_S = 300.0
_REOPEN_S = 1.0
# On a new cluster the transaction coordinator is available only after some seconds, which is no failure.
_FIRST_SESSION_S = 10.0
_RENEW_EVERY_S = 3600.0
# The first renewal is sooner, since a worker may be restarted every hour.
_RENEW_FIRST_S = 60.0
_LOOK_EVERY_S = 2.0


# Outcomes of a transaction whose result is unknown, and the function that is called if it was committed.
_Attempt: TypeAlias = "tuple[list[OutcomeT], Callable[[list[OutcomeT]], None]]"


class CommitObserver(Protocol):
    """Observer of transactions: metrics and logs."""

    def transaction(self, publication: Publication) -> None:
        """Record the end of a transaction."""

    def commit_blocked(self, message: str | None) -> None:
        """Record that commits are blocked, or no longer (None)."""


class Committer(Generic[OutcomeT]):
    """Committer of the ledger's heads by transactions. Owned by the thread that owns the consumer.

    Args:
        sink: runs transactions.
        group: the consumer whose offsets are committed.
        ledger: source of the heads.
        max_outcomes: limit of outcomes in a transaction.
        monotonic: monotonic seconds.
        observe: records transactions and blocked commits.
        on_session: called whenever a new producer session is open.
        renewed_topics: topics whose commits are renewed even if no record is read there.

    Attributes:
        bounds: limits of the next transaction.
        last_error: why commits are blocked; None: they are not, as far as is known.
        is_stale: whether the group has a newer generation without this worker, so its partitions have other owners.
    """

    def __init__(
        self,
        *,
        sink: TransactionalSink,
        group: GroupConsumer,
        ledger: OffsetLedger[OutcomeT],
        max_outcomes: int,
        monotonic: Callable[[], float],
        observe: CommitObserver,
        on_session: Callable[[], None] = lambda: None,
        renewed_topics: Collection[str] = (),
    ) -> None:
        self._sink = sink
        self._group = group
        self._ledger = ledger
        self.bounds = TransactionBounds(max_outcomes)
        self._monotonic = monotonic
        self._observe = observe
        self._on_session = on_session
        self._fenced_at: deque[float] = deque(maxlen=_FENCED_LIMIT)
        self._renewed_topics = frozenset(renewed_topics)
        self._renew_at = monotonic() + _RENEW_FIRST_S
        self._look_at = 0.0
        self._renewals: set[Partition] = set()
        self._retry_at = 0.0
        self._is_resolved = False
        self._unresolved: _Attempt[OutcomeT] | None = None
        self._had_session = False
        self._first_opened_at: float | None = None
        self._closed = False
        self.last_error: str | None = None
        self.is_stale = False

    @property
    def can_attempt(self) -> bool:
        """Whether the delay since the last failure has passed."""
        return not self._closed and self._monotonic() >= self._retry_at

    @property
    def renewal_due(self) -> bool:
        """Whether commits have to be renewed or moved behind markers, by a transaction without heads if necessary."""
        return bool(self._renewals)

    def find_renewals(self) -> None:
        """Find, every 2 s, the commits that have to be renewed or moved behind markers. They are until committed.

        The end of a partition is known 100 ms after its last record, which may be after the commit of that record.
        """
        now = self._monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY_S
        heads = self._ledger.empty_batches()
        self._renewals &= {batch.partition for batch in heads}
        self._renewals |= {batch.partition for batch in heads if self._to_end(batch) != batch}
        if now >= self._renew_at:
            renewed = {batch.partition for batch in heads if batch.partition.topic in self._renewed_topics}
            self._renewals |= renewed
            if renewed:
                self._renew_at = now + _RENEW_EVERY_S

    def ensure_session(self) -> bool:
        """Open a producer session if none is usable, and resolve unknown outcomes; return whether both succeeded.

        A predecessor with the same transactional id may have left a transaction open. A new session ends it, so that
        its offsets can be read.

        Raises:
            ProducerFenced: another producer took over the transactional id three times in five minutes.
            BrokerRefused: a right is missing for the first session. A right revoked later is waited for.
        """
        if self._closed:
            return False
        if not self._sink.is_open:
            failed = self._sink.open()
            if failed is not None:
                if failed.denied and not self._had_session:
                    raise BrokerRefused(failed.message)
                if not failed.fenced and self._is_first_session_young():
                    self._retry_at = self._monotonic() + _REOPEN_S
                else:
                    self._on_failure(failed)
                return False
            self._had_session = True
            self._on_session()
        if not self._is_resolved:
            try:
                committed = self._group.committed(self._ledger.partitions)
            except BrokerUnavailable as error:
                self.suspend(str(error))
                return False
            self._resolve(committed)
        if not self._ledger.has_committable():
            self._recovered()
        # Otherwise only a commit shows recovery: with a right missing, each new session opens, and each transaction
        # fails.
        self.is_stale = False
        return True

    def batches(self) -> list[CommittableBatch[OutcomeT]]:
        """Return the heads of the next transaction. The ledger is not changed."""
        return self._ledger.committable(self.bounds.outcomes, self.bounds.bytes)

    def commit(
        self,
        batches: list[CommittableBatch[OutcomeT]],
        records: list[OutRecord],
        on_committed: Callable[[list[OutcomeT]], None],
    ) -> Publication:
        """Run one transaction with the offsets of these heads, and apply its result to the ledger.

        The caller handles records that the broker rejects individually.

        Args:
            batches: the heads.
            records: the records of their outcomes.
            on_committed: called with the outcomes once they are committed: now, or when the committed offsets show
                that a transaction of unknown outcome was committed.

        Raises:
            ProducerFenced: as for `ensure_session`.
            BrokerRefused: a topic was deleted and created again, so the heads may be of either.
        """
        if not all(self._ledger.is_assigned(batch) for batch in batches):
            raise AssertionError("a head was to be published whose assignment has ended")
        heads = [self._to_end(batch) for batch in [*batches, *self._renewed(batches)]]
        publication = self._transact(heads, records)
        self._observe.transaction(publication)
        outcomes = [outcome for batch in batches for outcome in batch.outcomes]
        self._is_resolved = isinstance(publication, Committed)
        self._unresolved = None if self._is_resolved else (outcomes, on_committed)
        if isinstance(publication, Committed):
            self._ledger.mark_committed(heads)
            self._renewals.clear()
            on_committed(outcomes)
            self._recovered()
            if not publication.slow:
                self.bounds.double()
        elif isinstance(publication, Failed):
            if publication.late:
                self.bounds.halve(len(outcomes), sum(batch.size for batch in batches))
            self._on_failure(publication)
        return publication

    def on_rebalance(self) -> None:
        """Allow commits again after a rebalance: offsets refused to an older generation may be accepted now."""
        if self.is_stale and not self._closed:
            self.is_stale = False
            self._retry_at = 0.0

    def close(self) -> None:
        """Close the producer session; no further transaction is run.

        The client is destroyed on a thread of its own, because that can block. Left to the garbage collector, it would
        block the end of the process.
        """
        self._closed = True
        self.is_stale = True
        self._sink.close()

    def suspend(self, message: str) -> None:
        """Block commits for this reason; ``can_attempt`` is true again after a delay."""
        self.last_error = message
        self._retry_at = self._monotonic() + _REOPEN_S
        self._observe.commit_blocked(message)

    def _resolve(self, committed: Mapping[Partition, int]) -> None:
        """Apply the committed offsets: they decide whether the last transaction was committed."""
        self._ledger.resolve(committed)
        attempt, self._unresolved = self._unresolved, None
        self._is_resolved = True
        if attempt is None:
            return
        outcomes, on_committed = attempt
        covered = [outcome for outcome in outcomes if is_below(committed, outcome.record)]
        if covered:
            on_committed(covered)

    def _transact(self, batches: list[CommittableBatch[OutcomeT]], records: list[OutRecord]) -> Publication:
        try:
            # After reading: no offset read from a topic that was created again is ever committed.
            self._group.check_topics({batch.partition.topic for batch in batches})
        except BrokerUnavailable as error:
            return Failed(str(error))
        except BrokerRefused:
            self.close()  # or the stop of the worker would commit finished heads
            raise
        group = self._group.group_metadata()
        if group is None:
            return Failed("the worker was removed from its group", stale=True)
        return self._sink.publish(records, [self._offset_of(batch) for batch in batches], group)

    def _offset_of(self, batch: CommittableBatch[OutcomeT]) -> TopicPartition:
        metadata = self._group.commit_metadata(batch.partition, batch.start_offset)
        return TopicPartition(*batch.partition, batch.next_offset, metadata)

    def _to_end(self, batch: CommittableBatch[OutcomeT]) -> CommittableBatch[OutcomeT]:
        """Return a head that ends behind the transaction markers after it."""
        return batch._replace(next_offset=self._group.commit_offset(batch.partition, batch.next_offset))

    def _is_first_session_young(self) -> bool:
        """Return whether the first session is being opened, within its first 10 s."""
        if self._had_session:
            return False
        if self._first_opened_at is None:
            self._first_opened_at = self._monotonic()
        return self._monotonic() - self._first_opened_at < _FIRST_SESSION_S

    def _renewed(self, batches: list[CommittableBatch[OutcomeT]]) -> list[CommittableBatch[OutcomeT]]:
        """Return the heads without outcomes for renewals of partitions without a head in this transaction."""
        wanted = self._renewals - {batch.partition for batch in batches}
        return [batch for batch in self._ledger.empty_batches() if batch.partition in wanted] if wanted else []

    def _recovered(self) -> None:
        if self.last_error is not None:
            self.last_error = None
            self._observe.commit_blocked(None)

    def _on_failure(self, failed: Failed) -> None:
        self.suspend(failed.message)
        self.is_stale = failed.stale
        if not failed.fenced:
            return
        now = self._monotonic()
        self._fenced_at.append(now)
        if len(self._fenced_at) == _FENCED_LIMIT and now - self._fenced_at[0] <= _FENCED_WINDOW_S:
            self.close()  # another session would fence the other worker again
            raise ProducerFenced(
                "another running worker uses the same transactional id and fenced this one three times in five "
                "minutes: give every worker a `kafka.instance_id` of its own"
            )
