"""Faults at exact protocol steps: random faults miss the worst ones, which last a millisecond."""

from __future__ import annotations

import random
import time
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from expected_state import Recovery
from kafka_proxy import Act, Api, Step
from scenes import SLOW_API, Scenario, seen
from scoring_harness import Input, contacts

from stream_scorer.core.retry_topics import DEFERRED_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from expected_state import ExpectedState
    from worker_harness import WorkerProcess

# The steps at which a worker is killed; held requests are delivered when its successor runs.
KILL_STEPS: Final = (
    ("after begin", Api.ADD_PARTITIONS_TO_TXN, Act.HOLD),
    ("after produce", Api.PRODUCE, Act.NOTE_ANSWER),
    ("before the offsets", Api.ADD_OFFSETS_TO_TXN, Act.HOLD),
    ("after the offsets", Api.TXN_OFFSET_COMMIT, Act.NOTE_ANSWER),
    ("during commit, the request comes late", Api.END_TXN, Act.HOLD),
    ("during commit, the answer is lost", Api.END_TXN, Act.LOSE_ANSWER),
)
_DEFERRED_SHARE: Final = 0.1
_LATE_SOCKETS: Final = {"socket.timeout.ms": 2000, "delivery.timeout.ms": 3000}


def killed_at_each_step(scene: Scenario) -> ExpectedState:
    """Kill one worker after the other, all of one name, at one step of its transaction each."""
    with scene.stage() as stage:
        worker = scene.begin(stage, 9000)
        for name, api, act in KILL_STEPS:
            step = scene.kafka.proxy.plan(Step(api, act, then=partial(stage.kill, worker)))
            seen(stage, step, f"the step {name}")
            worker = stage.start(name="one")
            stage.wait(partial(worker.said, "partition assigned"), "the successor to have work", needs=worker)
            step.end()
            stage.recover(f"killed {name}", worker)
        return stage.close()


def killed_with_deferred_contacts(scene: Scenario) -> ExpectedState:
    """As `killed_at_each_step`, while a tenth of the contacts goes through the retry topics.

    A request with several contacts leaves them out, one with a single contact does not. So each is scored at last.
    """
    with scene.stage(scoring__retry_delays_s="[0.5, 1]") as stage:
        scene.simulator.add_fault(
            min_contacts=2, times=None, results=[{"do": "omit", "of": {"share": _DEFERRED_SHARE}}]
        )
        worker, retries = scene.begin(stage, 9000), stage.watch_retries()
        for name, api, act in KILL_STEPS:
            stage.wait(retries.number, "contacts in the retry topics")
            step = scene.kafka.proxy.plan(Step(api, act, then=partial(stage.kill, worker)))
            seen(stage, step, f"the step {name}")
            worker = stage.start(name="one")
            stage.wait(partial(worker.said, "partition assigned"), "the successor to have work", needs=worker)
            step.end()
            stage.recover(f"killed {name}", worker)
        retries.close()
        state = stage.close()
    headers = [name for row in state.rows["scores"] for name, _ in row.headers]
    assert headers.count(DEFERRED_HEADER) >= _DEFERRED_SHARE / 2 * 9000
    return state


def lost_end_txn_answer(scene: Scenario) -> ExpectedState:
    """The broker commits, and no response to EndTxn arrives until the worker has closed its producer."""
    with scene.stage() as stage:
        worker = scene.begin(stage, 6000)
        proxy = scene.kafka.proxy
        lost = proxy.plan(Step(Api.END_TXN, Act.LOSE_ANSWER, times=None))
        new = proxy.plan(Step(Api.INIT_PRODUCER_ID, Act.NOTE_REQUEST))
        seen(stage, lost, "an EndTxn")
        seen(stage, new, "a new producer")
        lost.end()
        stage.recover("EndTxn answers lost", worker)
        return stage.close()


def lost_offsets_answer(scene: Scenario) -> ExpectedState:
    """No response to TxnOffsetCommit arrives: nothing is committed yet, so the worker must not wait for long."""
    with scene.stage() as stage:
        worker = scene.begin(stage, 6000)
        proxy = scene.kafka.proxy
        lost = proxy.plan(Step(Api.TXN_OFFSET_COMMIT, Act.LOSE_ANSWER, times=None))
        new = proxy.plan(Step(Api.INIT_PRODUCER_ID, Act.NOTE_REQUEST))
        seen(stage, lost, "the offsets")
        began = time.monotonic()
        seen(stage, new, "a new producer")
        stage.recoveries.append(Recovery("TxnOffsetCommit answers lost: given up", time.monotonic() - began, 15.0))
        lost.end()
        stage.recover("TxnOffsetCommit answers lost", worker)
        return stage.close()


def late_end_txn(scene: Scenario) -> ExpectedState:
    """An EndTxn is repeated by the client, and the first one arrives in the middle of the next transaction."""
    with scene.stage(_LATE_SOCKETS) as stage:
        worker = scene.begin(stage, 6000)
        proxy = scene.kafka.proxy
        written = Step(Api.PRODUCE, Act.NOTE_ANSWER)
        # The client retries them soon. Not ADD_OFFSETS_TO_TXN: if it is first, the partitions wait behind it.
        offsets = Step(Api.TXN_OFFSET_COMMIT, Act.HOLD, times=None)

        def wait_for_the_next() -> None:
            proxy.plan(written)
            proxy.plan(offsets)

        held = proxy.plan(Step(Api.END_TXN, Act.HOLD))
        # Before its response is forwarded: nothing of the next transaction is in flight.
        again = proxy.plan(Step(Api.END_TXN, Act.NOTE_ANSWER, then=wait_for_the_next))
        seen(stage, held, "an EndTxn")
        seen(stage, again, "its repetition")
        seen(stage, offsets, "the next transaction's offsets")
        seen(stage, written, "the next transaction's records")
        held.release()
        time.sleep(1.0)  # the broker writes its markers after its response, at an unknown time
        stage.kill(worker)
        offsets.end()
        successor = stage.start(name="one")
        stage.recover("EndTxn delivered late", successor)
        return stage.close()


def produce_held(scene: Scenario) -> ExpectedState:
    """Records are held beyond their delivery time-out: the transaction is aborted, and all is published again."""
    with scene.stage(_LATE_SOCKETS) as stage:
        worker = scene.begin(stage, 2000)
        for round_ in range(2):
            stage.produce(contacts(4000, stage.partitions, prefix=f"H{round_}"))  # there must be a backlog
            # Retries too: one in time would prevent the abort.
            held = scene.kafka.proxy.plan(Step(Api.PRODUCE, Act.HOLD, times=None))
            ended = scene.kafka.proxy.plan(Step(Api.INIT_PRODUCER_ID, Act.NOTE_REQUEST))
            seen(stage, held, "a Produce")
            stage.wait(
                lambda ended=ended: ended.seen,  # type: ignore[misc]
                "the abort",
                needs=worker,
            )
            held.end()
            stage.recover("Produce held", worker)
        return stage.close()


def rebalanced_under_a_slow_api(scene: Scenario) -> ExpectedState:
    """A second worker joins and leaves while responses take longer than the wait of the first one at a revocation."""
    with scene.stage(scoring__revoke_wait_s="0.2") as stage:
        scene.simulator.configure(latency_ms=1500, latency_jitter_ms=500)
        worker = scene.begin(stage, 8000)
        for _ in range(2):
            guest = stage.start_ready(name="guest")
            stage.flow(300, needs=worker)
            assert guest.stop() == 0
            stage.flow(100, needs=worker)
        scene.simulator.configure(**SLOW_API)
        stage.kills += 4  # requests in flight at a revocation are sent again by the new owner
        return stage.close()


def rebalanced_within_a_transaction(scene: Scenario) -> ExpectedState:
    """A second worker joins while the first one's offsets are on their way: the broker refuses the old generation.

    The contacts of that transaction are finished and billed. They have to be committed before the revocation.
    """
    with scene.stage() as stage:
        worker = scene.begin(stage, 1000)
        stage.wait_done(needs=worker)
        proxy = scene.kafka.proxy
        joins = proxy.plan(Step(Api.JOIN_GROUP, Act.HOLD))
        guest = stage.start(name="guest")
        seen(stage, joins, "the guest at the door")
        offsets = proxy.plan(Step(Api.TXN_OFFSET_COMMIT, Act.HOLD))
        stage.produce(
            contacts(400, stage.partitions, prefix="D")
        )  # few enough for finished contacts in every partition
        seen(stage, offsets, "the offsets")
        synced = proxy.plan(Step(Api.SYNC_GROUP, Act.NOTE_ANSWER, times=2))
        joins.end()
        seen(stage, synced, "a new generation of both", times=2)
        offsets.end()
        stage.wait(partial(_was_refused, worker), "the broker to refuse the old generation", needs=worker)
        stage.wait(partial(guest.said, "partition assigned"), "the guest to have work", needs=guest)
        stage.produce(contacts(1000, stage.partitions, prefix="L"))
        stage.recover("rebalanced within a transaction", guest)
        return stage.close()


def _was_refused(worker: WorkerProcess) -> bool:
    return any("ILLEGAL_GENERATION" in said["detail"] for said in worker.said("transaction failed"))


def unpublishable(scene: Scenario) -> ExpectedState:
    """Records that the client rejects are between good ones."""
    with scene.stage({"message.max.bytes": 100_000}) as stage:
        stage.produce(contacts(500, stage.partitions))
        huge = (Input(f"huge-{n}".encode(), b"\0" * 300_000, n % stage.partitions) for n in range(8))
        stage.produce(huge, good=False)
        stage.produce(contacts(500, stage.partitions, prefix="D"))
        worker = stage.start_ready("--from", "earliest")
        stage.wait_done(needs=worker)
        return stage.close()


def refused_by_the_broker(scene: Scenario) -> ExpectedState:
    """The size limit of a topic is lowered while records are in flight: the broker rejects them one by one."""
    with scene.stage() as stage:
        worker = scene.begin(stage, 4000)
        stage.set_limit("rejected", 60_000)
        noise = random.Random(1)  # noqa: S311 - what can be compressed would be taken
        for round_ in range(3):
            sizes = (70_000, 90_000)[round_ % 2]
            large = (Input(f"large-{n}".encode(), noise.randbytes(sizes), n % stage.partitions) for n in range(4))
            stage.produce(large, good=False)
            stage.produce(contacts(500, stage.partitions, prefix=f"R{round_}"))
            stage.set_limit("rejected", 60_000 - 5_000 * (round_ + 1))
            stage.flow(400, needs=worker)
        stage.wait_done(needs=worker)
        stage.needless_failures = failed_transactions(worker)
        return stage.close()


def zombie(scene: Scenario) -> ExpectedState:
    """A worker is paused beyond its session, while another one gets its partitions, and then resumed."""
    with scene.stage() as stage:
        worker = scene.begin(stage, 8000)
        worker.pause()
        stage.kills += 1  # its contacts in flight count as those of a killed worker
        successor = stage.start("--from", "earliest", name="two")
        stage.wait_owned(successor)
        stage.flow(500, needs=successor)
        worker.resume()
        stage.recover("SIGSTOP longer than the session", successor)
        return stage.close()


def zombie_within_a_transaction(scene: Scenario) -> ExpectedState:
    """A worker is paused within a transaction and sends its offsets when another one has its partitions."""
    with scene.stage({"transaction.timeout.ms": 30_000}) as stage:
        worker = scene.begin(stage, 1000)
        proxy = scene.kafka.proxy
        joins = proxy.plan(Step(Api.JOIN_GROUP, Act.HOLD))
        successor = stage.start("--from", "earliest", name="two")
        seen(stage, joins, "the successor at the door")
        offsets = proxy.plan(Step(Api.ADD_OFFSETS_TO_TXN, Act.HOLD, then=worker.pause))
        stage.produce(contacts(7000, stage.partitions, prefix="D"))
        seen(stage, offsets, "the offsets")
        stage.kills += 1  # its contacts in flight count as those of a killed worker
        joins.end()
        stage.wait_owned(successor)
        stage.flow(500, needs=successor)
        offsets.end()
        worker.resume()
        stage.recover("SIGSTOP in the midst of a transaction", successor)
        return stage.close()


SCENARIOS: Final[Mapping[str, Callable[[Scenario], ExpectedState]]] = MappingProxyType(
    {
        scenario.__name__: scenario
        for scenario in (
            killed_at_each_step,
            killed_with_deferred_contacts,
            lost_end_txn_answer,
            lost_offsets_answer,
            late_end_txn,
            produce_held,
            rebalanced_under_a_slow_api,
            rebalanced_within_a_transaction,
            unpublishable,
            refused_by_the_broker,
            zombie,
            zombie_within_a_transaction,
        )
    }
)


def failed_transactions(worker: WorkerProcess) -> int:
    """Return the number of transactions that failed without a rejected record."""
    answer = worker.admin("/metrics")
    assert answer is not None
    name = "stream_scorer_transactions_total"
    lines = [line for line in answer.text.splitlines() if line.startswith(name) and 'outcome="failed"' in line]
    assert lines, f"no {name} with the outcome failed"
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines)
