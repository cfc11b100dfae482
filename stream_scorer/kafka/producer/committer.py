"""Commits finished heads together with the records they lead to, and recovers from whatever goes wrong.

What a service writes is its own business; that it is written exactly once is this module's. It opens producer sessions,
refuses heads whose assignment has ended, commits the offsets of the others with the group's start and the topic's id.
After a failure it makes a new producer and lets the committed offsets settle what happened. Nothing is written while an
earlier outcome is unsettled. What was not written in time is written in smaller transactions
(``core.exactly_once.transaction_bounds``).

Commits on retry topics are renewed. The group is not subscribed to them (see ``kafka.consumer.retry_consumer``), so the
broker deletes a commit there once it is older than ``offsets.retention.minutes`` (7 days by default). Without it,
everything in the partition would be read again.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Protocol

from confluent_kafka import TopicPartition

from stream_scorer.core.exactly_once.outcome_cache import OutcomeT
from stream_scorer.core.exactly_once.transaction_bounds import TransactionBounds
from stream_scorer.errors import BrokerRefused, BrokerUnavailable, ProducerFenced
from stream_scorer.kafka.producer.records import Committed, Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from stream_scorer.core.exactly_once.offset_ledger import CommittableBatch, OffsetLedger
    from stream_scorer.core.records import Partition
    from stream_scorer.kafka.producer.records import OutRecord, Publication

_FENCED_LIMIT = 3
_FENCED_WINDOW_S = 300.0
_REOPEN_S = 1.0
# On a new cluster the coordinator of transactions is there after seconds only: until then nothing is wrong.
_FIRST_SESSION_S = 10.0
_RENEW_EVERY_S = 3600.0
# The first time sooner: a worker may be restarted every hour.
_RENEW_FIRST_S = 60.0


class Sink(Protocol):
    """See ``kafka.producer.sink.TransactionalSink``."""

    @property
    def is_open(self) -> bool:
        """Whether a session can be used."""

    def open(self) -> Failed | None:
        """Makes a new session."""

    def publish(self, records: list[OutRecord], offsets: list[TopicPartition], group: Any) -> Publication:
        """Runs one transaction."""

    def close(self) -> None:
        """Ends the session."""


class Group(Protocol):
    """What is needed of the consumer here; see ``kafka.consumer.group_consumer.Source``."""

    def group_metadata(self) -> Any | None:
        """The group's generation; None where we are no member."""

    def committed(self, partitions: list[Partition]) -> Mapping[Partition, int]:
        """The committed offsets."""

    def check_topics(self, topics: Collection[str]) -> None:
        """Check that these topics are those that were read; raises where one was created again, or is deleted."""

    def commit_metadata(self, partition: Partition, start_offset: int) -> str:
        """The metadata of the next commit on a partition."""


class CommitObserver(Protocol):
    """Who is told how transactions go."""

    def transaction(self, publication: Publication) -> None:
        """A transaction ended."""

    def commit_blocked(self, message: str | None) -> None:
        """Nothing can be published for now, or that is over (None)."""


class Committer(Generic[OutcomeT]):
    """See the module's text. Owned by the thread that owns the consumer.

    Args:
        sink: writes transactions.
        group: the consumer whose offsets are committed.
        ledger: whose heads these are.
        max_outcomes: how many outcomes a transaction may hold.
        monotonic: clock in seconds.
        observe: is told how it goes.
        on_session: called whenever a new producer session is there.
        renewed_topics: whose commits are repeated even if nothing is read there.

    Attributes:
        bounds: how large the next transaction may be.
        on_settled: called with the committed offsets that have settled what had become of a transaction.
        trouble: why nothing can be published now; None: it can, as far as is known.
        is_stale: whether the group has moved on without us: what we hold, somebody else does.
    """

    def __init__(
        self,
        *,
        sink: Sink,
        group: Group,
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
        self.on_commit_resolved: Callable[[Mapping[Partition, int]], None] = lambda _: None
        self._fenced_at: deque[float] = deque(maxlen=_FENCED_LIMIT)
        self._renewed_topics = frozenset(renewed_topics)
        self._renew_at = monotonic() + _RENEW_FIRST_S
        self._retry_at = 0.0
        self._is_resolved = False
        self._had_session = False
        self._first_opened_at: float | None = None
        self._closed = False
        self.last_error: str | None = None
        self.is_stale = False

    @property
    def can_attempt(self) -> bool:
        """Whether enough time has passed since the last trouble."""
        return not self._closed and self._monotonic() >= self._retry_at

    @property
    def renewal_due(self) -> bool:
        """Whether commits are to be repeated, by a transaction without heads if there are none."""
        if not self._renewed_topics or self._monotonic() < self._renew_at:
            return False
        return any(partition.topic in self._renewed_topics for partition in self._ledger.partitions)

    def ensure_session(self) -> bool:
        """Makes sure of a usable producer session, with everything unknown settled. Returns whether that is so.

        A predecessor with the same transactional id may have left a transaction open; this ends it, so that its offsets
        can be read.

        Raises:
            ProducerFenced: three times in five minutes another producer took over our transactional id.
            BrokerRefused: there was no session yet, and a right is missing. One that is taken away later is waited for.
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
                self._ledger.resolve(committed)
                self.on_commit_resolved(committed)
            except BrokerUnavailable as error:
                self.suspend(str(error))
                return False
            self._is_resolved = True
        if not self._ledger.has_committable():
            self._recovered()
        # Else a commit has to show it: with a right missing, each new session is fine, and each transaction fails.
        self.is_stale = False
        return True

    def batches(self) -> list[CommittableBatch[OutcomeT]]:
        """Return what the next transaction may publish. Takes nothing out of the ledger."""
        return self._ledger.committable(self.bounds.outcomes, self.bounds.bytes)

    def commit(self, batches: list[CommittableBatch[OutcomeT]], records: list[OutRecord]) -> Publication:
        """Runs one transaction with these heads' offsets, and carries out what its end means for the ledger.

        Where the broker refuses records themselves, what to do about it is the caller's to say.

        Raises:
            ProducerFenced: as `ready`.
            BrokerRefused: a topic was deleted and created again, so the heads may be of either.
        """
        if not all(self._ledger.is_assigned(batch) for batch in batches):
            raise AssertionError("a head was to be published whose assignment has ended")
        is_renewal = self.renewal_due
        renewed = self._renewed(batches) if is_renewal else []
        publication = self._transact([*batches, *renewed], records)
        self._observe.transaction(publication)
        if is_renewal and isinstance(publication, Committed):
            self._renew_at = self._monotonic() + _RENEW_EVERY_S
        self._is_resolved = isinstance(publication, Committed)
        if isinstance(publication, Committed):
            self._ledger.mark_committed(batches)
            self._recovered()
            if not publication.slow:
                self.bounds.double()
        elif isinstance(publication, Failed):
            if publication.late:
                self.bounds.halve(sum(len(batch.outcomes) for batch in batches), sum(batch.size for batch in batches))
            self._on_failure(publication)
        return publication

    def on_rebalance(self) -> None:
        """Says that the group has just told us something: what it refused to an older generation it may take now."""
        if self.is_stale and not self._closed:
            self.is_stale = False
            self._retry_at = 0.0

    def close(self) -> None:
        """End the producer session and write nothing more.

        The client is destroyed on a thread of its own, because that can block; left to the garbage collector, it would
        block the end of the process.
        """
        self._closed = True
        self.is_stale = True
        self._sink.close()

    def suspend(self, message: str) -> None:
        """Says why nothing can be published for now; ``may_try`` says when to look again."""
        self.last_error = message
        self._retry_at = self._monotonic() + _REOPEN_S
        self._observe.commit_blocked(message)

    def _transact(self, batches: list[CommittableBatch[OutcomeT]], records: list[OutRecord]) -> Publication:
        try:
            # After reading: what is read from a topic that was created again is never committed.
            self._group.check_topics({batch.partition.topic for batch in batches})
        except BrokerUnavailable as error:
            return Failed(str(error))
        except BrokerRefused:
            self.close()  # nothing that is finished may be committed at the end of the worker either
            raise
        group = self._group.group_metadata()
        if group is None:
            return Failed("the worker was thrown out of its group", stale=True)
        return self._sink.publish(records, [self._offset_of(batch) for batch in batches], group)

    def _offset_of(self, batch: CommittableBatch[OutcomeT]) -> TopicPartition:
        topic, number = batch.partition
        metadata = self._group.commit_metadata(batch.partition, batch.start_offset)
        return TopicPartition(topic, number, batch.next_offset, metadata)

    def _is_first_session_young(self) -> bool:
        """Whether the first session is being opened, and has not taken long yet."""
        if self._had_session:
            return False
        if self._first_opened_at is None:
            self._first_opened_at = self._monotonic()
        return self._monotonic() - self._first_opened_at < _FIRST_SESSION_S

    def _renewed(self, batches: list[CommittableBatch[OutcomeT]]) -> list[CommittableBatch[OutcomeT]]:
        """The heads that repeat the commits of partitions for which this transaction has none."""
        advanced = {batch.partition for batch in batches}
        return [batch for batch in self._ledger.empty_batches(self._renewed_topics) if batch.partition not in advanced]

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
            self.close()  # another session would fence the other worker once more
            raise ProducerFenced(
                "another running worker uses the same transactional id and fenced this one three times in five "
                "minutes: give every worker a `kafka.instance_id` of its own"
            )
