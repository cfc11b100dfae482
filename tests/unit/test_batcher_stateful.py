"""The batcher under any interleaving of contacts, takings and revocations, against the plain list of what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support_core import contact

from stream_scorer.core.batcher import Batch, Batcher, BatchKey
from stream_scorer.genesys.wire import body_overhead, build_body

if TYPE_CHECKING:
    from stream_scorer.core.events import Contact

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

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take_full(self) -> None:
        batch = self.batcher.take_full()
        if batch is not None:
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
    def drop(self, partition: int) -> None:
        self.batcher.drop(lambda one: one.record.partition == partition)
        self.held = {key: pair for key, pair in self.held.items() if pair[0].record.partition != partition}

    def check(self, batch: Batch) -> None:
        assert 1 <= len(batch.contacts) <= MAX_CONTACTS
        assert len({one.contact_id for one in batch.contacts}) == len(batch.contacts)
        assert {BatchKey(one.model_version, one.version_from_event) for one in batch.contacts} == {batch.key}
        assert len(build_body([one.body for one in batch.contacts], batch.key.model_version)) <= MAX_BYTES
        for one in batch.contacts:
            held, _ = self.held.pop(one.record.offset)  # else it is taken twice, or was never added
            assert held is one

    @invariant()
    def counts_what_it_holds(self) -> None:
        assert self.batcher.waiting == len(self.held)

    @invariant()
    def no_contact_lingers_longer_than_its_linger_says(self) -> None:
        due_at = self.batcher.due_at()
        if self.held and not self.batcher.has_full:
            assert due_at is not None
            assert due_at <= min(added_at for _, added_at in self.held.values()) + LINGER_S

    @invariant()
    def its_own_counts_are_exact(self) -> None:
        for opened in self.batcher._by_key.values():
            assert opened.batches
            in_batches = [contact_id for batch in opened.batches for contact_id in batch.ids]
            assert opened.copies == {contact_id: in_batches.count(contact_id) for contact_id in in_batches}

    def teardown(self) -> None:
        while (batch := self.batcher.take_any()) is not None:
            self.check(batch)
        assert not self.held
        assert not self.batcher._by_key


BatcherMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestBatcher = BatcherMachine.TestCase
