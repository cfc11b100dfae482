"""A slow link that allows only small transactions: each service finds a size that succeeds and grows afterwards."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from delivery_harness import PARTITIONS, DeliveryHarness, FakeSink, FakeSource, SimulatedReceivers, callback, delivered
from memory_metrics import MemoryMetrics
from support_core import record, scored
from test_planner import RULES, SCORES, WEBHOOK, value
from test_publisher import Harness as ScoringHarness

from stream_scorer.callbacks.callback_writer import CallbackWriter
from stream_scorer.callbacks.observer import PlannerObserver
from stream_scorer.callbacks.output_records import CallbackEncoder, CallbackTopics
from stream_scorer.callbacks.planner import Planner
from stream_scorer.callbacks.trace_headers import Untraced
from stream_scorer.core.avro.codec import Codec
from stream_scorer.core.exactly_once.offset_ledger import OffsetLedger
from stream_scorer.core.exactly_once.transaction_bounds import TransactionBounds
from stream_scorer.core.records import Partition
from stream_scorer.kafka.producer.committer import Committer
from stream_scorer.kafka.producer.records import Committed, Failed
from stream_scorer.kafka.registry.paused_schema_partitions import PausedSchemaPartitions
from stream_scorer.kafka.registry.serde import SingleObjectSerde
from stream_scorer.runtime.clock import Clock
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.scoring.ports import OutcomeLedger

if TYPE_CHECKING:
    from stream_scorer.core.callbacks.selection import Examined
    from stream_scorer.kafka.producer.records import OutRecord, Publication

P0, P1 = Partition("contact-features", 0), Partition("contact-features", 1)
MEGABYTE = 1024 * 1024


class TestBounds:
    def test_the_limit_is_half_of_the_failed_size_down_to_one_outcome(self) -> None:
        bounds = TransactionBounds(16_000)
        assert not bounds.are_reduced
        bounds.halve(9_000, 10 * MEGABYTE)
        assert (bounds.outcomes, bounds.bytes) == (4_500, 5 * MEGABYTE)
        assert bounds.are_reduced
        for _ in range(20):
            bounds.halve(bounds.outcomes, bounds.bytes)
        assert (bounds.outcomes, bounds.bytes) == (1, 65_536)

    def test_a_smaller_transaction_than_allowed_that_fails_halves_itself(self) -> None:
        bounds = TransactionBounds(16_000)
        bounds.halve(10, MEGABYTE)
        assert (bounds.outcomes, bounds.bytes) == (5, MEGABYTE // 2)

    def test_successes_double_up_to_the_maximum(self) -> None:
        bounds = TransactionBounds(16_000)
        bounds.halve(1, 1)
        for _ in range(14):
            bounds.double()
        assert (bounds.outcomes, bounds.bytes) == (16_000, 16 * MEGABYTE)
        assert not bounds.are_reduced

    def test_refused_records_halve_the_outcomes_only(self) -> None:
        bounds = TransactionBounds(16_000)
        bounds.halve_outcomes(100)
        assert (bounds.outcomes, bounds.bytes) == (50, 16 * MEGABYTE)


class TestHeads:
    def ledger(self, *, sizes: tuple[int, ...]) -> OutcomeLedger:
        ledger = OutcomeLedger()
        for partition in (P0, P1):
            ledger.assign(partition, start_offset=0, next_offset=0)
            for offset, size in enumerate(sizes):
                one = record(offset, partition.number, bytes(size))._replace(key=None)
                ledger.read(one)
                ledger.finish(scored(one))
        return ledger

    def heads(self, ledger: OutcomeLedger, limit: int, max_bytes: int) -> list[tuple[int, int, int]]:
        return [(one.partition.number, len(one.outcomes), one.size) for one in ledger.committable(limit, max_bytes)]

    def test_bytes_bound_a_transaction_across_partitions(self) -> None:
        ledger = self.ledger(sizes=(100, 100, 100))
        assert self.heads(ledger, 99, 1_000) == [(0, 3, 300), (1, 3, 300)]
        assert self.heads(ledger, 99, 499) == [(0, 3, 300), (1, 1, 100)]
        assert self.heads(ledger, 99, 300) == [(0, 3, 300)]
        assert self.heads(ledger, 99, 250) == [(0, 2, 200), (1, 0, 0)][:1]

    def test_the_first_outcome_fits_whatever_its_size(self) -> None:
        ledger = self.ledger(sizes=(100, 100))
        assert self.heads(ledger, 99, 1) == [(0, 1, 100)]

    def test_a_small_bound_serves_the_partitions_in_turn(self) -> None:
        ledger = self.ledger(sizes=(100, 100, 100))
        served = []
        while heads := ledger.committable(1, 1):
            served.append(heads[0].partition.number)
            ledger.mark_committed(heads)
        assert served == [0, 1, 0, 1, 0, 1]


def line_of(limit: int) -> Any:
    def answer(records: list[OutRecord]) -> Publication:
        return Committed() if len(records) <= limit else Failed("it took too long", late=True)

    return answer


def test_the_scoring_worker_shrinks_its_transactions_until_one_is_written_in_time() -> None:
    harness = ScoringHarness()
    for offset in range(10, 1_010):
        harness.finish(offset)
    harness.sink.answers = [line_of(100)] * 100
    rounds = 0
    while len(harness.sink.sources()) < 1_000:
        harness.publish()
        rounds += 1
        assert rounds < 50, harness.sink.sizes
    assert harness.sink.sources() == list(range(10, 1_010))
    assert max(harness.sink.sizes[4:]) <= 2 * 100 + 2  # it grew up to the size that fails
    harness.sink.answers = []
    for offset in range(1_010, 3_010):
        harness.finish(offset)
    while len(harness.sink.sources()) < 3_000:
        assert harness.publish()
    assert max(harness.sink.sizes[-5:]) > 500


def test_after_a_slow_transaction_the_next_one_is_no_larger() -> None:
    harness = ScoringHarness()
    for offset in range(10, 1_010):
        harness.finish(offset)
    slow = Committed(slow=True)
    harness.sink.answers = [Failed("it took too long", late=True), *[slow] * 9]
    assert not harness.publish()
    for _ in range(2):
        assert harness.publish()
    assert [size - 1 for size in harness.sink.sizes] == [1_000, 500, 500]  # one is the audit event


def test_a_failure_that_came_early_does_not_shrink_the_transaction() -> None:
    harness = ScoringHarness()
    for offset in range(10, 110):
        harness.finish(offset)
    harness.sink.answers = [Failed("the coordinator has moved")]
    assert not harness.publish()
    assert harness.publish()
    assert harness.sink.sizes == [101, 101]


def test_large_records_are_published_in_several_transactions() -> None:
    harness = ScoringHarness()
    for offset in range(10, 50):
        harness.finish(offset, value=bytes(MEGABYTE))
    while harness.ledger.has_committable():
        assert harness.publish()
    assert [size - 1 for size in harness.sink.sizes] == [15, 15, 10]


@pytest.mark.parametrize("limit", [1, 2])
def test_the_deliverer_shrinks_its_transactions_until_one_is_written_in_time(limit: int) -> None:
    world = SimulatedReceivers(lambda _world, _callback: delivered())
    world.plan(callback(f"c{n}") for n in range(300))
    world.records_in_time = limit
    harness = DeliveryHarness(world)
    harness.run_dry()
    assert len(world.outcomes()) == 300
    assert max(harness.sink.sizes) > limit  # it was tried


class PlannerHarness:
    """The loop of the planner with the in-memory broker of `SimulatedReceivers`."""

    def __init__(self, world: SimulatedReceivers) -> None:
        self.world = world
        topics = CallbackTopics(
            "callbacks", (), "rejected", "receipts", dict.fromkeys(("callbacks", "rejected"), 10**6)
        )
        codecs = [
            Codec.single_object(load_schema(file))
            for file in (SchemaFile.CAMPAIGN_CALLBACK, SchemaFile.CALLBACK_RECEIPT)
        ]
        clock = Clock(lambda: world.now, lambda: world.now_ms, lambda: 0.5, lambda: "id")
        log: Any = type("Log", (), {"info": lambda *_a, **_k: None, "warning": lambda *_a, **_k: None})()
        observe = PlannerObserver(log, MemoryMetrics("callbacks"), clock)
        self.ledger: OffsetLedger[Examined] = OffsetLedger()
        self.source = FakeSource(world, [Partition("scores", number) for number in range(PARTITIONS)])
        source: Any = self.source
        self.sink = FakeSink(world)
        self.stopping = threading.Event()
        self.callbacks = CallbackWriter(
            committer=Committer(
                sink=self.sink,
                group=source,
                ledger=self.ledger,
                max_outcomes=2_000,
                monotonic=clock.monotonic,
                observe=observe,
            ),
            ledger=self.ledger,
            target=WEBHOOK,
            encoder=CallbackEncoder(topics, *codecs),
            rules=lambda: RULES,
            clock=clock,
            observe=observe,
            trace=Untraced(),
            linger_s=0.2,
        )
        self.planner = Planner(
            source=source,
            pending_schemas=PausedSchemaPartitions(source, self.ledger, SingleObjectSerde().lookup, lambda _: None),
            callbacks=self.callbacks,
            ledger=self.ledger,
            codec=SCORES,
            target=WEBHOOK,
            rules=lambda: RULES,
            clock=clock,
            observe=observe,
            stopping=self.stopping,
            shutdown_timeout_s=25.0,
        )
        source.subscribe(self.planner)

    def rounds(self, most: int) -> None:
        """Run the loop until all scores are planned."""
        self.callbacks.open()
        for _ in range(most):
            self.round()
            if self.planned() == len(self.world.topic("scores")):
                return
        raise AssertionError(self.sink.sizes)

    def round(self) -> None:
        """Run one round of the loop."""
        self.planner._process()
        self.callbacks.flush_due()
        self.world.now += 0.5

    def planned(self) -> int:
        return sum(offset for partition, offset in self.world.committed.items() if partition.topic == "scores")


def test_the_planner_shrinks_its_transactions_until_one_is_written_in_time() -> None:
    world = SimulatedReceivers(lambda _world, _callback: delivered())
    for n in range(400):
        # A campaign each: every score makes a callback of its own.
        world.write("scores", b"c%d" % n, SCORES.encode(value(contact_id=f"c{n}", campaign_id=f"campaign-{n}")))
    world.records_in_time = 10
    harness = PlannerHarness(world)
    harness.rounds(400)
    assert len(world.topic("callbacks")) == 400
    assert len({one.key for one in world.topic("callbacks")}) == 400
    assert max(harness.sink.sizes[-10:]) <= 20


def test_the_planner_bounds_what_it_reads_by_bytes() -> None:
    world = SimulatedReceivers(lambda _world, _callback: delivered())
    for n in range(100):
        one = SCORES.encode(value(contact_id=f"c{n}", campaign_id="spring"))
        world.write("scores", b"c%d" % n, one, [("x", bytes(MEGABYTE))])
    harness = PlannerHarness(world)
    harness.rounds(100)
    assert len(harness.sink.sizes) >= 100 // 15
