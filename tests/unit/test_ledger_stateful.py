"""The ledger against a simulated topic and broker, under any interleaving of what can happen to a worker.

The broker of the model checks what the real one does not: every transaction must continue the published log exactly
where it ended, each record once, in order, and with the first outcome that was found for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support_core import facts, record, rejected, scored

from stream_scorer.core.records import Partition, SourceRecord, size_of
from stream_scorer.core.scoring.types import Outcome, Scored
from stream_scorer.scoring.ports import OutcomeLedger

if TYPE_CHECKING:
    from stream_scorer.core.exactly_once.offset_ledger import CommittableBatch

PARTITIONS = [Partition("contact-features", number) for number in range(3)]
REMEMBERED = 6

partitions = st.sampled_from(PARTITIONS)
amounts = st.integers(1, 5)


@dataclass
class Topic:
    """One partition of the topic, and what the group has published and committed of it."""

    log: list[SourceRecord] = field(default_factory=list)
    end: int = 0
    committed: int = 0
    published: list[int] = field(default_factory=list)

    def below(self, offset: int) -> list[int]:
        return [one.offset for one in self.log if one.offset < offset]

    def commit(self, offset: int) -> None:
        """Another worker publishes everything below an offset."""
        self.published += [offset_ for offset_ in self.below(offset) if offset_ >= self.committed]
        self.committed = offset


@dataclass
class Mine:
    """What the model knows of one assignment."""

    position: int
    settled: int = 0
    rows: list[SourceRecord] = field(default_factory=list)
    finished: dict[int, Outcome] = field(default_factory=dict)
    stolen: bool = False


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ledger = OutcomeLedger(remembered_limit=REMEMBERED)
        self.topics = {partition: Topic() for partition in PARTITIONS}
        self.mine: dict[Partition, Mine] = {}
        self.batcher: list[SourceRecord] = []
        self.in_flight: list[SourceRecord] = []
        self.dead_heads: list[CommittableBatch] = []
        self.remembered_at: dict[SourceKey, int] = {}
        self.remembered = 0
        self.unsettled = False
        self.answers = 0

    # --- the topic

    @initialize()
    def some_records(self) -> None:
        for partition in PARTITIONS:
            self.produce(partition, 4, 1)

    @rule(partition=partitions, amount=amounts, step=st.integers(1, 3))
    def produce(self, partition: Partition, amount: int, step: int) -> None:
        topic = self.topics[partition]
        for _ in range(amount):
            value = None if topic.end % 7 == 3 else bytes(topic.end % 5)
            topic.log.append(record(topic.end, partition.number, value))
            topic.end += step  # control records and compaction leave gaps

    # --- ownership

    @rule(partition=partitions)
    def own(self, partition: Partition) -> None:
        if partition in self.mine:
            return
        committed = self.topics[partition].committed
        self.ledger.assign(partition, start_offset=0, next_offset=committed)
        self.mine[partition] = Mine(committed)

    @rule(partition=partitions)
    def disown(self, partition: Partition) -> None:
        mine = self.mine.pop(partition, None)
        self.dead_heads += [head for head in self.ledger.committable(100) if head.partition == partition]
        asked = [one for one in self.in_flight if self.partition_of(one) == partition]
        self.ledger.revoke(partition, asked)
        self.batcher = [one for one in self.batcher if self.ledger.is_pending(one)]
        for outcome in () if mine is None else mine.finished.values():
            self.remember(outcome)

    @precondition(lambda self: self.mine)
    @rule(data=st.data())
    def steal(self, data: st.DataObject) -> None:
        """The group gives a partition to another worker, and we do not know it yet."""
        self.mine[data.draw(st.sampled_from(sorted(self.mine)))].stolen = True

    @rule(partition=partitions, amount=amounts)
    def another_worker_commits(self, partition: Partition, amount: int) -> None:
        topic = self.topics[partition]
        if partition in self.mine and not self.mine[partition].stolen:
            return
        left = [one for one in topic.log if one.offset >= topic.committed][:amount]
        if left:
            topic.commit(left[-1].next_offset)

    # --- records and answers

    @precondition(lambda self: self.mine)
    @rule(data=st.data(), amount=amounts)
    def read(self, data: st.DataObject, amount: int) -> None:
        partition = data.draw(st.sampled_from(sorted(self.mine)))
        mine, topic = self.mine[partition], self.topics[partition]
        for one in [one for one in topic.log if one.offset >= mine.position][:amount]:
            self.deliver(mine, one)

    def deliver(self, mine: Mine, one: SourceRecord) -> None:
        mine.position = one.next_offset
        new = self.ledger.read(one)
        if one.offset < mine.settled:  # another worker has published it, as the resolved commit shows
            assert not new
            return
        mine.rows.append(one)
        self.check_read(mine, one, new=new)
        if new:
            self.batcher.append(one)

    def check_read(self, mine: Mine, one: SourceRecord, *, new: bool) -> None:
        key = key_of(one)
        remembered_at = self.remembered_at.pop(key, None)
        if new:
            assert remembered_at is None or self.remembered - remembered_at >= REMEMBERED, "bought again"
            assert one not in self.in_flight, "two requests in flight for one record"
        elif one in self.in_flight:
            assert self.ledger.is_pending(one)
        else:
            assert remembered_at is not None, "its outcome is lost"
            mine.finished[one.offset] = self.outcome_in_ledger(one)

    @rule(partition=partitions)
    def read_what_was_read_before(self, partition: Partition) -> None:
        mine = self.mine.get(partition)
        if mine is not None and mine.rows:
            assert not self.ledger.read(mine.rows[-1])
        elif mine is None:
            assert not any(self.ledger.read(one) for one in self.topics[partition].log)

    @precondition(lambda self: self.batcher)
    @rule(amount=amounts)
    def ask(self, amount: int) -> None:
        asked, self.batcher = self.batcher[:amount], self.batcher[amount:]
        self.in_flight += asked

    @rule(partition=partitions)
    def everything_at_once(self, partition: Partition) -> None:
        """Own, read, ask and answer: so that there is something to publish more often."""
        self.own(partition)
        mine = self.mine[partition]
        for one in [one for one in self.topics[partition].log if one.offset >= mine.position]:
            self.deliver(mine, one)
        self.in_flight += self.batcher
        self.batcher = []
        for one in list(self.in_flight):
            self.in_flight.remove(one)
            self.answers += 1
            self.finish(one, scored(one, f"answer-{self.answers}"))

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.in_flight))
        self.in_flight.remove(one)
        self.answers += 1
        self.finish(one, scored(one, f"answer-{self.answers}"))

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def retry_finds_it_unwanted(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.in_flight))
        if not self.ledger.is_pending(one):
            self.in_flight.remove(one)
            self.ledger.drop(one)

    @precondition(lambda self: self.batcher)
    @rule()
    def reject_without_asking(self) -> None:
        one = self.batcher.pop(0)
        self.finish(one, rejected(one))

    def finish(self, one: SourceRecord, outcome: Outcome) -> None:
        mine = self.mine.get(self.partition_of(one))
        if mine is not None and any(row == one for row in mine.rows):
            mine.finished.setdefault(one.offset, outcome)
        elif one in self.ledger._orphans.values():
            self.remember(outcome)
        self.ledger.finish(outcome)

    @precondition(lambda self: any(mine.finished for mine in self.mine.values()))
    @rule(data=st.data())
    def replace(self, data: st.DataObject) -> None:
        finished = [outcome for mine in self.mine.values() for outcome in mine.finished.values()]
        one = data.draw(st.sampled_from(finished)).record
        outcome = rejected(one, facts("unpublishable"))
        self.ledger.replace(outcome)
        self.mine[self.partition_of(one)].finished[one.offset] = outcome

    def remember(self, outcome: Outcome) -> None:
        if outcome.request is not None:
            self.remembered_at[key_of(outcome.record)] = self.remembered
            self.remembered += 1

    # --- transactions

    @precondition(lambda self: not self.unsettled and self.ledger.has_committable())
    @rule(limit=st.integers(1, 12), end=st.sampled_from(["confirmed", "aborted", "unknown", "unknown, committed"]))
    def publish(self, limit: int, end: str) -> None:
        batches = self.ledger.committable(limit)
        assert sum(len(head.outcomes) for head in batches) <= limit
        assert all(self.ledger.is_assigned(head) for head in batches)
        assert bool(batches) == self.ledger.has_committable()
        if any(self.mine[head.partition].stolen for head in batches):
            end = "aborted"  # the broker knows that our generation is over
        if end in {"confirmed", "unknown, committed"}:
            for head in batches:
                self.commit(head)
        if end == "confirmed":
            self.ledger.mark_committed(batches)
            for head in batches:
                self.drop_rows(head.partition)
        else:
            self.unsettled = True

    def commit(self, head: CommittableBatch) -> None:
        topic, mine = self.topics[head.partition], self.mine[head.partition]
        rows = [one for one in topic.log if topic.committed <= one.offset < head.next_offset]
        assert [outcome.record for outcome in head.outcomes] == rows, "lost, doubled or out of order"
        assert head.outcomes == [mine.finished[one.offset] for one in rows]
        topic.published += [outcome.record.offset for outcome in head.outcomes]
        topic.committed = head.next_offset

    @precondition(lambda self: self.unsettled)
    @rule()
    def settle(self) -> None:
        self.ledger.resolve({partition: self.topics[partition].committed for partition in self.ledger.partitions})
        for partition, mine in self.mine.items():
            mine.settled = self.topics[partition].committed
            self.drop_rows(partition)
        self.batcher = [one for one in self.batcher if self.ledger.is_pending(one)]
        self.unsettled = False

    def drop_rows(self, partition: Partition) -> None:
        mine, committed = self.mine[partition], self.topics[partition].committed
        mine.rows = [one for one in mine.rows if one.offset >= committed]
        mine.finished = {offset: outcome for offset, outcome in mine.finished.items() if offset >= committed}

    # --- always

    @invariant()
    def published_is_what_was_committed(self) -> None:
        for topic in self.topics.values():
            assert topic.published == topic.below(topic.committed)

    @invariant()
    def no_dead_token_lives(self) -> None:
        assert not any(self.ledger.is_assigned(head) for head in self.dead_heads)

    @invariant()
    def sums_are_exact(self) -> None:
        rows = [one for mine in self.mine.values() for one in mine.rows]
        assert self.ledger.uncommitted == len(rows)
        assert self.ledger.uncommitted_bytes == sum(size_of(one) for one in rows)
        assert self.ledger.committable_count() == sum(len(head.outcomes) for head in self.ledger.committable(10_000))

    @invariant()
    def everything_unfinished_is_being_seen_to(self) -> None:
        for mine in self.mine.values():
            for one in mine.rows:
                assert self.ledger.is_pending(one) == (one.offset not in mine.finished)
                if self.ledger.is_pending(one):
                    assert (one in self.batcher) + (one in self.in_flight) == 1

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.ledger._remembered) <= REMEMBERED
        assert {key_of(one) for one in self.ledger._orphans.values()} <= {key_of(one) for one in self.in_flight}
        for partition, owned in self.ledger._assigned.items():
            assert len(owned.finished) + len(owned.pending) == len(owned.rows) == len(self.mine[partition].rows)

    def teardown(self) -> None:
        """Left alone, the worker brings every record out."""
        if self.unsettled:
            self.settle()
            self.sums_are_exact()
            self.everything_unfinished_is_being_seen_to()
        for partition in PARTITIONS:
            self.disown(partition)
            self.own(partition)
            mine, topic = self.mine[partition], self.topics[partition]
            for one in [one for one in topic.log if one.offset >= mine.position]:
                self.deliver(mine, one)
        for one in self.batcher + self.in_flight:
            self.finish(one, scored(one, "last"))
        self.batcher, self.in_flight = [], []
        self.publish(10_000, "confirmed")
        for topic in self.topics.values():
            assert topic.published == [one.offset for one in topic.log]
        assert (self.ledger.uncommitted, self.ledger.uncommitted_bytes) == (0, 0)
        assert not self.ledger._orphans

    # --- helpers

    def partition_of(self, one: SourceRecord) -> Partition:
        return Partition(one.topic, one.partition)

    def outcome_in_ledger(self, one: SourceRecord) -> Outcome:
        outcome = self.ledger._assigned[self.partition_of(one)].finished[one.offset]
        assert outcome.record == one
        assert isinstance(outcome, Scored) or outcome.request is not None
        return outcome


SourceKey = tuple[int, int]


def key_of(one: SourceRecord) -> SourceKey:
    return one.partition, one.offset


LedgerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestLedger = LedgerMachine.TestCase
