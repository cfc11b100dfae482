"""Transactions of the campaign worker on an in-memory broker: no callback and no receipt is lost or duplicated at any
result of a transaction.

Mutants of planner and deliverer (``tests/chaos/policy_mutants``) are caught here, each by an assertion of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from delivery_harness import (
    CALLBACKS,
    RETRY_TOPICS,
    DeliveryHarness,
    SimulatedReceivers,
    callback,
    delivered,
    later,
    refused,
)
from test_planner import NOW_MS, SCORES, value
from test_transaction_bounds import PlannerHarness

from stream_scorer.core.records import Partition

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_scorer.core.records import SourceRecord

SCORE_PARTITIONS = [Partition("scores", 0), Partition("scores", 1)]


def put_scores(world: SimulatedReceivers, number: int, prefix: str = "c") -> set[str]:
    """Produce due scores, each of its own campaign and so a callback of its own; return their sources."""
    before = len(world.topic("scores"))
    for n in range(number):
        name = f"{prefix}{n}"
        world.write("scores", name.encode(), SCORES.encode(value(contact_id=name, campaign_id=f"k-{name}")))
    assert len(world.topic("scores")) == before + number
    return {one.source for one in world.topic("scores")}


def sources(records: Iterable[SourceRecord]) -> Counter[str]:
    """Return how often each score is in these callbacks."""
    return Counter(source for one in records for source in CALLBACKS.decode(one.value)["sources"])


class TestPlanner:
    def test_a_plan_that_failed_is_planned_again(self) -> None:
        world = SimulatedReceivers(lambda *_: delivered())
        wanted = put_scores(world, 40)
        world.endings = ["lost", "ok", "lost"]
        PlannerHarness(world).rounds(100)
        assert sources(world.topic("callbacks")).keys() == wanted, "a score has no callback"

    def test_a_plan_whose_outcome_is_unknown_is_not_written_twice(self) -> None:
        world = SimulatedReceivers(lambda *_: delivered())
        wanted = put_scores(world, 40)
        world.endings = ["unknown", "ok"]
        harness = PlannerHarness(world)
        harness.rounds(100)
        for _ in range(6):  # committed, but with an unknown result for the planner
            harness.round()
        assert sources(world.topic("callbacks")) == dict.fromkeys(wanted, 1), "a score is in two callbacks"

    def test_every_outcome_of_a_plan_is_written(self) -> None:
        world = SimulatedReceivers(lambda *_: delivered())
        wanted = put_scores(world, 10)
        world.write("scores", b"old", SCORES.encode(value(contact_id="old", scored_at=NOW_MS - 90_000_000)))
        world.write("scores", b"odd", b"no score at all")
        PlannerHarness(world).rounds(100)
        assert len(world.topic("callbacks")) == len(wanted), "a callback of the plan is not written"
        assert [one["outcome"] for found in world.receipts().values() for one in found] == ["EXPIRED"]
        assert [one.value for one in world.topic("rejected")] == [b"no score at all"]

    def test_scores_of_a_revoked_partition_are_planned_by_its_next_owner_only(self) -> None:
        world = SimulatedReceivers(lambda *_: delivered())
        wanted = put_scores(world, 40)
        harness = PlannerHarness(world)
        harness.callbacks.open()
        harness.planner._process()
        harness.source.revoke(SCORE_PARTITIONS)
        PlannerHarness(world).rounds(100)
        harness.callbacks.flush()
        assert sources(world.topic("callbacks")) == dict.fromkeys(wanted, 1), "two owners planned one score"

    def test_in_a_quiet_partition_the_commit_moves_behind_the_markers(self) -> None:
        """Otherwise it would be below the first offset of a log that retention has emptied."""
        world = SimulatedReceivers(lambda *_: delivered())
        wanted = put_scores(world, 40)
        harness = PlannerHarness(world)
        harness.rounds(100)
        before = dict(world.committed)
        ends = {place: offset + 1 for place, offset in before.items()}
        harness.source.commit_offset = lambda place, next_offset: max(next_offset, ends[place])  # type: ignore[method-assign]
        for _ in range(20):  # ten seconds, in which the ends of the partitions become known
            harness.round()
        assert world.committed == {place: offset + 1 for place, offset in before.items()}
        assert harness.sink.sizes[-1] == 0
        assert harness.sink.sizes.count(0) == 1, "once"
        assert sources(world.topic("callbacks")) == dict.fromkeys(wanted, 1)


class TestDeliverer:
    @pytest.mark.parametrize("ending", ["lost", "unknown"])
    def test_a_transaction_that_failed_loses_and_doubles_no_receipt(self, ending: str) -> None:
        world = SimulatedReceivers(lambda *_: delivered())
        world.plan(callback(f"cb-{n}") for n in range(40))
        world.endings = [ending, "ok", ending]
        harness = DeliveryHarness(world)
        harness.run_dry()
        receipts = {name: len(found) for name, found in world.receipts().items()}
        assert receipts.keys() == {f"cb-{n}" for n in range(40)}, "a callback has no receipt"
        assert set(receipts.values()) == {1}, "a callback has two receipts"

    def test_what_was_refused_is_on_the_rejected_topic_once(self) -> None:
        world = SimulatedReceivers(lambda *_: replace(refused(), status=None))  # it cannot be sent
        world.plan(callback(f"cb-{n}") for n in range(10))
        world.endings = ["lost", "unknown"]
        DeliveryHarness(world).run_dry()
        rejected = Counter(one.key for one in world.topic("rejected"))
        assert rejected == {f"cb-{n}".encode(): 1 for n in range(10)}, "a refused callback is not there once"

    def test_a_retry_is_not_lost_by_a_revocation(self) -> None:
        """Outcomes that are not committed at a revocation are committed then, with the retry records."""
        world = SimulatedReceivers(lambda w, _: later(20.0) if w.now < 1_001 else delivered())
        world.plan(callback(f"cb-{n}") for n in range(6))
        world.endings = ["stale"]  # the rebalance made the last transaction fail: all of it is pending
        harness = DeliveryHarness(world)
        done: list[int] = []

        def rebalance() -> None:
            if not world.endings and not done:
                done.append(1)
                harness.source.revoke(harness.places)
                harness.source.assign(harness.places)

        harness.run(lambda: bool(done) and world.now > 1_002, rebalance)
        moved = {one.key for tier in RETRY_TOPICS for one in world.topic(tier)}
        ended = {name.encode() for name in world.receipts()}
        assert moved | ended == {f"cb-{n}".encode() for n in range(6)}, "a callback waits nowhere"
        assert moved, "nothing was put off"
        DeliveryHarness(world).run_dry()
        assert len(world.outcomes()) == 6
