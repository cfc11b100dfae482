"""The batcher under any interleaving of contacts, takings and revocations, against the plain list of what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support_core import TOPIC, contact

from stream_scorer.core.records import Partition
from stream_scorer.core.scoring.batcher import Batch, Batcher, BatchKey
from stream_scorer.genesys.wire import body_overhead, build_body

if TYPE_CHECKING:
    from stream_scorer.core.scoring.types import Contact

MAX_CONTACTS = 5
MAX_BYTES = 400
LINGER_S = 1.0


class BatcherMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.batcher = Batcher(
            max_contacts=MAX_CONTACTS, max_body_bytes=MAX_BYTES, overhead_bytes=body_overhead, linger_s=LINGER_S
        )
        self.now = 0.0
        self.held: dict[int, tuple[Contact, float]] = {}
        self.added = 0
        self.taken: list[Batch] = []

    @rule(
        contact_id=st.sampled_from("abcdef"),
        size=st.one_of(st.sampled_from([31, 60, 150, 250, 300]), st.integers(31, 420)),
        version=st.sampled_from([None, "1", "a longer one"]),
        from_event=st.booleans(),
        partition=st.integers(0, 2),
    )
    def add(self, contact_id: str, size: int, version: str | None, from_event: bool, partition: int) -> None:
        self.added += 1
        one = contact(
            contact_id,
            self.added,
            partition,
            version=version,
            from_event=from_event and version is not None,
            body=b"x" * size,
        )
        fits = len(build_body([one.body], version)) <= MAX_BYTES
        assert self.batcher.fits(one) == fits
        if fits:
            self.batcher.add(one, self.now)
            self.held[self.added] = (one, self.now)

    @rule(seconds=st.sampled_from([0.125, 0.5, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take_full(self) -> None:
        """A full one, unless contacts of several partitions have waited too long."""
        had_full = self.batcher.has_full
        batch = self.batcher.take_full(self.now)
        if batch is not None:
            assert had_full or batch.opened_at + 5 * LINGER_S <= self.now
            self.check(batch)
        else:
            assert not self.batcher.has_full

    @rule()
    def take_due(self) -> None:
        due_at = self.batcher.due_at()
        batch = self.batcher.take_due(self.now)
        assert (batch is not None) == (due_at is not None and self.now >= due_at)
        if batch is not None:
            assert batch.opened_at + LINGER_S == due_at
            self.check(batch)

    @rule()
    def take_any(self) -> None:
        batch = self.batcher.take_any()
        assert (batch is None) == (not self.held)
        if batch is not None:
            self.check(batch)

    @rule(partition=st.integers(0, 2))
    def remove(self, partition: int) -> None:
        removed = self.batcher.remove(lambda one: one.record.partition == partition)
        expected = {key for key, pair in self.held.items() if pair[0].record.partition == partition}
        assert sorted(one.record.offset for one in removed) == sorted(expected)
        self.held = {key: pair for key, pair in self.held.items() if key not in expected}

    @rule(partitions=st.sets(st.integers(0, 2)))
    def keep_apart(self, partitions: set[int]) -> None:
        self.batcher.apart = {Partition(TOPIC, number) for number in partitions}

    @rule(version=st.sampled_from([None, "1"]), partition=st.integers(0, 2))
    def take_contact(self, version: str | None, partition: int) -> None:
        batch = self.batcher.take_contact(version, lambda contact: contact.record.partition == partition)
        wanted = [
            held
            for held, _ in self.held.values()
            if held.model_version == version and held.record.partition == partition
        ]
        assert (batch is None) == (not wanted)
        if batch is not None:
            (one,) = batch.contacts
            assert one in wanted
            assert self.held.pop(one.record.offset)[0] is one
            self.taken.append(batch)

    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        """Some of the batches that were taken: their contacts keep the time at which they were added first."""
        returned = [batch for batch in self.taken if data.draw(st.booleans())]
        self.taken = [batch for batch in self.taken if batch not in returned]
        self.batcher.put_back(returned)
        for batch in returned:
            self.held |= {one.record.offset: (one, batch.opened_at) for one in batch.contacts}
        ages = [opened.opened_at for opened in self.batcher._by_age.values()]
        assert ages == sorted(ages)

    @rule(version=st.sampled_from([None, "1", "a longer one"]), apart=st.sampled_from([None, True, False]))
    def take_allowed(self, version: str | None, *, apart: bool | None) -> None:
        def allows(key: BatchKey) -> bool:
            return key.model_version == version

        is_due = self.batcher.is_due(self.now, allows)
        batch = self.batcher.take_full(self.now, allows, apart=apart) or self.batcher.take_due(
            self.now, allows, apart=apart
        )
        assert is_due or batch is None
        assert batch is not None or not is_due or apart is not None
        if batch is not None:
            assert batch.key.model_version == version
            assert apart is None or batch.apart is apart
            self.check(batch)

    @rule(size=st.integers(1, MAX_CONTACTS))
    def take_full_at_a_smaller_size(self, size: int) -> None:
        had_full = self.batcher.has_full
        batch = self.batcher.take_full(sizes={"1": size})
        if batch is not None:
            assert had_full or (batch.key.model_version == "1" and len(batch.contacts) >= size)
            self.check(batch)
        else:
            assert all(
                len(opened.contacts) < size
                for opened in self.batcher._by_age.values()
                if opened.place.key.model_version == "1"
            )

    def check(self, batch: Batch) -> None:
        assert 1 <= len(batch.contacts) <= MAX_CONTACTS
        assert len({one.contact_id for one in batch.contacts}) == len(batch.contacts)
        assert {BatchKey(one.model_version, one.version_from_event) for one in batch.contacts} == {batch.key}
        assert len(build_body([one.body for one in batch.contacts], batch.key.model_version)) <= MAX_BYTES
        partitions = {Partition(TOPIC, one.record.partition) for one in batch.contacts}
        assert partitions <= self.batcher.apart if batch.apart else partitions.isdisjoint(self.batcher.apart)
        assert not batch.apart or len(partitions) == 1
        for one in batch.contacts:
            held, _ = self.held.pop(one.record.offset)  # else it is taken twice, or was never added
            assert held is one
        self.taken.append(batch)

    @invariant()
    def counts_what_it_holds(self) -> None:
        assert self.batcher.waiting == len(self.held)
        assert {id(one) for one in self.batcher} == {id(held) for held, _ in self.held.values()}
        lanes = [lane for of_key in self.batcher._by_key.values() for lane in of_key.values()]
        repeats = sum(len(lane.batches) - 1 for lane in lanes)
        assert self.batcher.open_batches == len(self.batcher._by_key) + repeats

    @invariant()
    def no_contact_lingers_longer_than_its_linger(self) -> None:
        due_at = self.batcher.due_at()
        if self.held and not self.batcher.has_full:
            assert due_at is not None
            assert due_at <= min(added_at for _, added_at in self.held.values()) + LINGER_S

    @invariant()
    def its_own_counts_are_exact(self) -> None:
        for opened in (lane for of_key in self.batcher._by_key.values() for lane in of_key.values()):
            assert opened.batches
            for batch in opened.batches:
                assert batch.ids == {one.contact_id for one in batch.contacts}
                assert len(batch.ids) == len(batch.contacts)
                assert {one.record.partition for one in batch.contacts} == {batch.place.partition.number}
                used = sum(len(one.body) + 1 for one in batch.contacts)
                assert batch.room == MAX_BYTES - body_overhead(batch.place.key.model_version) + 1 - used
            in_batches = [contact_id for batch in opened.batches for contact_id in batch.ids]
            assert opened.copies == {contact_id: in_batches.count(contact_id) for contact_id in in_batches}

    def teardown(self) -> None:
        while (batch := self.batcher.take_any()) is not None:
            self.check(batch)
        assert not self.held
        assert not self.batcher._by_key


BatcherMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
TestBatcher = BatcherMachine.TestCase
