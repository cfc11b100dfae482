"""Short chaos tests: killed workers, a broker outage, a zombie worker, an API outage."""

# ruff: noqa: T201 - measured figures are printed

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from chaos import Storm
from expected_state import read_state
from output_verifier import verify_outputs
from scenarios import lost_end_txn_answer
from scoring_harness import contacts
from seed_topics import Planted, SeedWriter
from verifier import verdict, violations

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxied_kafka import ProxiedKafka
    from scenes import Scenario
    from worker_harness import WorkerHarness, WorkerProcess

    from stream_scorer.local.simulator import Simulator

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(280)]

SLOW_API: dict[str, Any] = {"latency_ms": 200, "latency_jitter_ms": 100}
MAX_UNCOMMITTED = 1500
SMALL_BATCHES = {
    "STREAM_SCORER_SCORING__MAX_CONTACTS": "50",
    "STREAM_SCORER_SCORING__MAX_UNCOMMITTED": str(MAX_UNCOMMITTED),
    "STREAM_SCORER_SCORING__LINGER_MS": "20",
}


def test_three_kills(stage: WorkerHarness) -> None:
    report = Storm(stage, number=12_000, kills=3, seed=7).run()
    print(f"\n{report}")
    assert report.paid_twice <= report.bound


def test_a_lost_end_txn_answer(scene: Scenario) -> None:
    """The broker has committed, but the response is lost: only the committed offsets show it.

    Violations are then planted on the same topics, and the verifier has to find them.
    """
    state = lost_end_txn_answer(scene)
    assert verdict(state) == ""
    assert scene.last is not None
    planted = SeedWriter(scene.last, state).plant()
    found = violations(read_state(scene.last))
    assert {Planted(one.kind, one.place) for one in found} == planted
    assert len(found) == len(planted)


def test_the_broker_goes_away_and_comes_back(
    make_stage: Callable[..., WorkerHarness], proxied_kafka: ProxiedKafka, simulator: Simulator
) -> None:
    """Stopped cleanly, then killed for longer than the worker's session, which is 3 s in tests."""
    kafka = proxied_kafka.kafka
    stage = make_stage(bootstrap_servers=proxied_kafka.direct, simulator=simulator)
    stage.changes |= SMALL_BATCHES
    stage.simulator.configure(**SLOW_API)
    worker = stage.start("--from", "earliest")
    progress = stage.watch()
    for away_s, end in ((1, kafka.stop), (5, kafka.kill)):
        committed = progress.done()
        stage.produce(contacts(2500, stage.partitions, prefix=f"away-{away_s}"))
        stage.wait(partial(_past, progress.done, max(committed, 0) + 500), "the flow", needs=worker)
        end()
        stage.wait(partial(_past, time.monotonic, time.monotonic() + away_s), "the outage to pass", needs=worker)
        kafka.start()
        back = time.monotonic()
        stage.wait_done(needs=worker)
        print(f"\nbroker away for {away_s} s: all is done {time.monotonic() - back:.1f} s after it was back")
    progress.close()
    assert worker.stop() == 0
    found = verify_outputs(stage)
    assert len(found.outputs) == 5000
    paid_twice = found.paid_twice(stage.simulator.scored())
    print(f"{paid_twice} contacts paid twice")
    assert paid_twice == 0


def test_a_zombie_beside_its_successor(stage: WorkerHarness) -> None:
    stage.changes |= SMALL_BATCHES
    stage.simulator.configure(**SLOW_API)
    stage.produce(contacts(5000, stage.partitions))
    zombie = stage.start_ready("--from", "earliest")
    progress = stage.watch()
    stage.wait(lambda: progress.done() >= 500, "the first contacts to be committed", needs=zombie)
    zombie.pause()
    successor = stage.start("--from", "earliest")
    stage.wait_owned(successor)
    at = progress.done()
    stage.wait(lambda: progress.done() >= at + 500, "the successor to commit", needs=successor)
    zombie.resume()
    progress.close()
    stage.wait_done(needs=successor)
    assert (zombie.stop(), successor.stop()) == (0, 0)
    found = verify_outputs(stage)
    assert len(found.outputs) == 5000
    paid_twice = found.paid_twice(stage.simulator.scored())
    print(f"\nzombie: nothing visible twice; {paid_twice} contacts paid twice")
    # The zombie has at most this many uncommitted contacts in flight when it learns that its partitions were revoked:
    # the successor sends these again. The successor commits before it revokes partitions, so nothing else is billed
    # twice.
    assert paid_twice <= MAX_UNCOMMITTED


class TestTheApiIsDown:
    def test_connection_refused(self, stage: WorkerHarness) -> None:
        stage.changes |= SMALL_BATCHES
        stage.simulator.configure(**SLOW_API)
        stage.produce(contacts(3000, stage.partitions))
        worker = stage.start_ready()
        progress = stage.watch()
        stage.wait(lambda: progress.done() >= 300, "the first contacts to be committed", needs=worker)
        progress.close()
        before = stage.simulator.scored()
        stage.simulator.stop()
        why = stage.wait(
            lambda: "circuit open" in worker.why_not_ready() and worker.why_not_ready(), "a hold", needs=worker
        )
        print(f"\n/readyz: {why}")
        stage.wait(lambda: failed_probes(worker) >= 5, "five probes", needs=worker)
        stage.simulator.start()
        stage.simulator.configure(quota=1_000_000)
        stage.wait_done(needs=worker)
        assert worker.stop() == 0
        found = verify_outputs(stage)
        assert found.count("rejected") == 0
        # Its account is lost with it: requests between the last reading and its end are missing in the sum.
        account = Counter(before) + Counter(stage.simulator.scored())
        assert max(account.values()) <= 2

    def test_errors_without_end(self, stage: WorkerHarness) -> None:
        stage.changes |= SMALL_BATCHES
        stage.produce(contacts(2000, stage.partitions))
        stage.simulator.add_fault(status=503, times=None, min_contacts=1)
        worker = stage.start_ready()
        stage.wait(lambda: worker.why_not_ready().startswith("circuit open"), "a hold", needs=worker)
        assert "stream_scorer_circuit_breaker_open" in metrics(worker)
        stage.wait(lambda: failed_probes(worker) >= 5, "five probes", needs=worker)
        assert verify_outputs(stage, everything=False).outputs == {}
        stage.simulator.clear_faults()
        stage.wait_done(needs=worker)
        stage.wait(worker.ready, "the worker to be ready again", needs=worker)
        assert worker.stop() == 0
        found = verify_outputs(stage)
        assert found.count("rejected") == 0
        assert found.paid_twice(stage.simulator.scored()) == 0

    def test_single_faults_are_retried(self, stage: WorkerHarness) -> None:
        """429 with Retry-After, connections dropped before and after scoring, time-outs, HTML instead of JSON."""
        stage.changes |= SMALL_BATCHES
        faults: tuple[dict[str, Any], ...] = (
            {"status": 429, "retry_after": 1},
            {"drop": "before"},
            {"drop": "after"},
            {"status": 502, "body": "html"},
            {"status": 200, "body": "html"},
            {"status": 408},
            {"delay_ms": 3000},
        )
        for number, fault in enumerate(faults):
            stage.simulator.add_fault(after=number, min_contacts=1, **fault)
        stage.produce(contacts(2000, stage.partitions))
        worker = stage.start_ready(genesys__timeout_s="2")
        stage.wait_done(needs=worker)
        assert worker.stop() == 0
        found = verify_outputs(stage)
        assert found.count("rejected") == 0
        assert all(fault["fired"] for fault in stage.simulator.faults())
        paid_twice = found.paid_twice(stage.simulator.scored())
        # Only a lost response after scoring (dropped, too late) is billed twice.
        print(f"\npaid twice: {paid_twice}")
        assert paid_twice <= 2 * 50


def _past(now: Callable[[], float], mark: float) -> bool:
    return now() >= mark


def metrics(worker: WorkerProcess) -> str:
    answer = worker.admin("/metrics")
    assert answer is not None
    return answer.text


def failed_probes(worker: WorkerProcess) -> float:
    lines = metrics(worker).splitlines()
    found = [
        line
        for line in lines
        if line.startswith("stream_scorer_circuit_breaker_probes_total{") and 'outcome="failed"' in line
    ]
    return float(found[0].rsplit(" ", 1)[1]) if found else 0.0
