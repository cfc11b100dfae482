"""A slow link to the brokers that times out transactions of full size: each service reduces them until they succeed.

Formerly transactions kept failing and were never reduced: 12 failures in 190 s (script 07). Ids and headers are random,
and so incompressible.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from typing import TYPE_CHECKING

import pytest
from callbacks_harness import CALLBACK, CallbacksHarness, score
from kafka_proxy import Act, Api, Step
from scenarios import failed_transactions
from scoring_harness import contact

from stream_scorer.reconciliation import reconcile, reconcile_callbacks
from stream_scorer.settings import Settings, load_settings
from stream_scorer.targets.payload import encode_body

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxied_kafka import ProxiedKafka
    from scenes import Scenario
    from worker_harness import WorkerProcess

    from stream_scorer.local.receiver import Receiver

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(280)]

# Until one is small enough, and one that grew too large again. Without halving: 6 in the planner, unlimited elsewhere.
MOST_FAILURES = 5
NOISE = random.Random(1)  # noqa: S311 - what can be compressed would pass


def long_id() -> str:
    return NOISE.randbytes(120).hex()


def failures(worker: WorkerProcess, loop: str = "") -> int:
    """Return the number of failed transactions, of one loop in a campaign worker."""
    if not loop:
        return failed_transactions(worker)
    answer = worker.admin("/metrics")
    assert answer is not None
    lines = [line for line in answer.text.splitlines() if line.startswith("stream_scorer_transactions_total")]
    [line] = [line for line in lines if 'outcome="failed"' in line and f'loop="{loop}"' in line]
    return int(float(line.rsplit(" ", 1)[1]))


def gauge(worker: WorkerProcess, name: str) -> float:
    answer = worker.admin("/metrics")
    lines = [] if answer is None else answer.text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def test_the_scoring_worker(scene: Scenario) -> None:
    number = 3_000
    settings = {"scoring__max_uncommitted": str(number), "scoring__max_contacts": "500", "genesys__timeout_s": "30"}
    with scene.stage(**settings) as stage:
        stage.produce(
            contact(f"C-{n:06}", n % stage.partitions, [("x", NOISE.randbytes(2_000))]) for n in range(number)
        )
        scene.simulator.configure(latency_ms=5_000, latency_jitter_ms=100)  # all is read before a response
        worker = stage.start_ready("--from", "earliest", name="one")
        read = lambda: gauge(worker, "stream_scorer_contacts_uncommitted") > number * 0.8  # noqa: E731
        stage.wait(read, "a full window", needs=worker)
        scene.kafka.proxy.bandwidth(400)  # 7 MB in 18 s, where 7 s are allowed
        began = time.monotonic()
        stage.wait_done(needs=worker)
        took_s, failed = time.monotonic() - began, failures(worker)
        print(f"\nscorer: {failed} failed transactions, {took_s:.0f} s")  # noqa: T201 - the measurement
        assert 1 <= failed <= MOST_FAILURES
        scene.kafka.proxy.heal()
        assert worker.stop() == 0
        report = reconcile(load_settings(environ=stage.settings()))
        assert report.is_balanced, report.findings
        assert report.totals.inputs == number
        assert scene.simulator.scored(minimum=2) == {}, "nothing is bought again"


@pytest.fixture
def campaign(proxied_kafka: ProxiedKafka, receiver: Receiver, tmp_path: Path) -> Iterator[CallbacksHarness]:
    """A campaign worker's stage; start it with ``kafka__bootstrap_servers=proxied_kafka.proxied``."""
    stage = CallbacksHarness(proxied_kafka.direct, tmp_path, receiver.environment())
    yield stage
    stage.kill_all()
    proxied_kafka.proxy.clear()
    proxied_kafka.proxy.heal()


def settings_of(stage: CallbacksHarness) -> Settings:
    environ = {
        "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": stage.bootstrap_servers,
        "STREAM_SCORER_KAFKA__GROUP_ID": stage.group_id,
        **{f"STREAM_SCORER_TOPICS__{kind.upper()}": topic for kind, topic in stage.topics.items()},
    }
    return load_settings(environ=environ)


def test_the_planner(campaign: CallbacksHarness, proxied_kafka: ProxiedKafka) -> None:
    number, proxy, stage = 2_000, proxied_kafka.proxy, campaign
    # A campaign each, so each is a callback of its own; the linger is long enough that one transaction takes all.
    stage.put(score(long_id(), event_id=long_id(), campaign_id=f"k{n}") for n in range(number))
    begun = proxy.plan(Step(Api.ADD_PARTITIONS_TO_TXN, Act.HOLD))
    line = {"kafka__bootstrap_servers": proxied_kafka.proxied}
    worker = stage.start("--from", "earliest", callbacks__linger_ms="20000", callbacks__target="log", **line)
    stage.wait(lambda: begun.seen, "the first transaction", needs=worker)
    proxy.bandwidth(150)  # 2 MB in 15 s, where 7 s are allowed
    begun.release()
    began = time.monotonic()
    stage.wait(lambda: len(stage.callbacks()) >= number, "all plans", needs=worker)
    took_s, failed = time.monotonic() - began, failures(worker, "planner")
    print(f"\nplanner: {failed} failed transactions, {took_s:.0f} s")  # noqa: T201 - the measurement
    assert 1 <= failed <= MOST_FAILURES
    proxy.heal()
    stage.wait_receipts(number, needs=worker)
    assert worker.stop() == 0
    assert stage.verify_receipts() == {"DELIVERED": number}
    report = reconcile_callbacks(settings_of(stage))
    assert report is not None
    assert report.is_balanced, report.findings


def planned(number: int, campaign_id: str) -> tuple[bytes, bytes]:
    """Key and value of a callback about a score elsewhere."""
    now_ms, callback_id = time.time_ns() // 1_000_000, str(uuid.UUID(int=NOISE.getrandbits(128)))
    fields = {
        "callback_id": callback_id,
        "campaign_id": campaign_id,
        "target": "webhook",
        "body": encode_body(callback_id, campaign_id, "m", now_ms, [json.dumps({"contact_id": f"c{number}"}).encode()]),
        "sources": [f"scores-elsewhere/0/{number}"],
        "event_ids": [long_id()],
        "contact_ids": [long_id()],
        "planned_at": now_ms,
        "attempts": 0,
        "not_before": now_ms,
    }
    return callback_id.encode(), CALLBACK.encode(fields)


def test_the_deliverer(campaign: CallbacksHarness, proxied_kafka: ProxiedKafka, receiver: Receiver) -> None:
    number, heads, proxy, stage = 1_500, 8, proxied_kafka.proxy, campaign
    # The first ones of each partition hang until their time-out: the outcomes of all others wait for one transaction.
    receiver.add_fault(campaign_id="hangs", hang=True, times=heads)
    stage.put_values("callbacks", [planned(n, "hangs") for n in range(heads)])
    stage.put_values("callbacks", [planned(n, f"k{n % 40}") for n in range(heads, number)])
    line = {"kafka__bootstrap_servers": proxied_kafka.proxied}
    worker = stage.start("--from", "earliest", **line)
    stage.wait(lambda: receiver.stats().callbacks >= number - heads, "all but those that hang", needs=worker)
    proxy.bandwidth(60)  # 1 MB in 17 s, where 7 s are allowed
    began = time.monotonic()
    stage.wait_receipts(number, needs=worker)
    took_s, failed = time.monotonic() - began, failures(worker, "deliverer")
    print(f"\ndeliverer: {failed} failed transactions, {took_s:.0f} s")  # noqa: T201 - the measurement
    assert 1 <= failed <= MOST_FAILURES
    proxy.heal()
    assert worker.stop() == 0
    receipts = stage.receipts()
    assert len({receipt["callback_id"] for receipt in receipts}) == len(receipts) == number
    assert {receipt["outcome"] for receipt in receipts} == {"DELIVERED"}
