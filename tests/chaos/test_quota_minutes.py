"""Minutes of the quota in real time, with a worker in a process of its own."""

# ruff: noqa: T201 - measured figures are printed

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from output_verifier import verify_outputs
from scoring_harness import contacts

if TYPE_CHECKING:
    from worker_harness import WorkerHarness

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

QUOTA = 300
MINUTES = 3
CONTACTS_A_REQUEST = 20
LATENCY_MS = 200


def test_a_backlog_uses_97_percent_of_the_quota_and_earns_no_429(stage: WorkerHarness) -> None:
    stage.simulator.configure(quota=QUOTA, latency_ms=LATENCY_MS)
    stage.produce(contacts(int((MINUTES + 0.2) * QUOTA) * CONTACTS_A_REQUEST, stage.partitions))
    changes: dict[str, Any] = {"scoring__max_contacts": str(CONTACTS_A_REQUEST)}
    worker = stage.start_ready(genesys__requests_per_minute=str(QUOTA), **changes)

    def taken() -> int:
        return stage.simulator.stats().requests_with("score", 200)

    stage.wait(lambda: taken() > 0, "the first request", needs=worker)
    began = time.monotonic()
    stage.wait(lambda: taken() > MINUTES * QUOTA, "so many minutes' requests", needs=worker, limit_s=600)
    took_s = time.monotonic() - began
    refused = stage.simulator.stats().requests_with("score", 429)
    share = 60 * MINUTES / took_s
    print(f"\n{MINUTES * QUOTA} requests took {took_s:.1f} s: {share:.1%} of {QUOTA} a minute; {refused} x 429")
    assert share >= 0.97
    assert refused == 0
    stage.wait_done(needs=worker, limit_s=120)
    assert worker.stop() == 0
    assert len(verify_outputs(stage).outputs) == stage.produced


def test_a_quiet_stream_of_five_a_second(stage: WorkerHarness) -> None:
    stage.simulator.configure(quota=QUOTA, latency_ms=LATENCY_MS)
    worker = stage.start_ready(genesys__requests_per_minute=str(QUOTA))
    began = time.monotonic()
    for number in range(5 * 60 * 2):
        stage.wait(lambda due=began + number / 5: time.monotonic() >= due, "the next contact's time")  # type: ignore[misc]
        stage.produce(contacts(1, stage.partitions, prefix=f"quiet-{number}"))
    stage.wait_done(needs=worker)
    requests = stage.simulator.stats().requests_with("score", 200)
    a_minute = requests / (time.monotonic() - began) * 60
    print(f"\nfive contacts a second: {a_minute:.0f} requests a minute")
    assert a_minute <= 60
    assert worker.stop() == 0
    assert len(verify_outputs(stage).outputs) == stage.produced
