"""Faults of the API under load: none of them rejects a good contact, bills it repeatedly or blocks partitions.

Each test reproduces an incident in short. Rows of docs/api-behaviour.md show the single responses; here the worker is a
process with full batches, a full window, and continuous input. A stop meanwhile: ``test_graceful_shutdown``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import pytest
from output_verifier import verify_outputs
from scoring_harness import contact, contacts

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_harness import WorkerHarness, WorkerProcess

pytestmark = pytest.mark.kafka

MAX_CONTROLS: Final = 20
# The default settings.
DEFAULTS: Final[dict[str, Any]] = {
    "genesys__backoff_base_s": None,
    "genesys__max_backoff_s": None,
    "genesys__probe_interval_s": None,
}
# Every request fails, independent of its contacts.
OUTAGES: Final[dict[str, dict[str, Any]]] = {
    "400-that-names-all": {"status": 400, "code": "invalid.value", "names": "all"},
    "400": {"status": 400},
    "404-html": {"status": 404, "body": "html"},
    "413-html": {"status": 413, "body": "html"},
    "empty-200": {"status": 200, "body": '{"results": []}'},
    "403-html": {"status": 403, "body": "html"},
    "302": {"status": 302},
}


def billed_again(stage: WorkerHarness) -> int:
    """Return how many contacts were scored more than once: each is produced once."""
    return sum(times - 1 for times in stage.simulator.scored(minimum=2).values())


def warm_up(stage: WorkerHarness, worker: WorkerProcess, number: int = 500) -> None:
    stage.produce(contacts(number, stage.partitions, "WARM"))
    stage.wait_done(needs=worker)


def test_no_outage_rejects_a_contact(stage: WorkerHarness) -> None:
    """One outage after the other, each until the circuit breaker is open."""
    worker = stage.start_ready()
    warm_up(stage, worker)
    for name, action in OUTAGES.items():
        stage.simulator.add_fault(min_contacts=1, times=None, **action)
        # With and without a version: a gateway's 404 is not the platform's own for a version, and the breaker of the
        # API is open while those of both are.
        stage.produce(
            contact(f"{name}-{n:04}", n % stage.partitions, model_version=(None, "v1")[n // 4 % 2])
            for n in range(1_000)
        )
        why = stage.wait(
            lambda: (line := worker.why_not_ready()).startswith("circuit open: ") and line,
            f"the circuit breaker to open because of {name}",
            needs=worker,
        )
        assert f"HTTP {action['status']}" in why
        stage.simulator.clear_faults()
        stage.wait_done(needs=worker)
    assert worker.stop() == 0
    verdict = verify_outputs(stage)
    assert verdict.count("rejected") == 0
    assert [source for source, output in verdict.outputs.items() if output.header("deferred")] == []
    assert billed_again(stage) <= MAX_CONTROLS
    assert len(worker.said("circuit opened")) == len(OUTAGES)


def test_one_contact_rejected_by_a_firewall_or_proxy_blocks_nothing(stage: WorkerHarness) -> None:
    """403 with HTML for the first contact of a partition, 409 for the first of another, before thousands of others."""
    for name, action in (("WAF", {"status": 403, "body": "html"}), ("ODD", {"status": 409})):
        stage.simulator.add_fault(contact_id=name, times=None, **action)
    stage.produce([contact("WAF", 0), contact("ODD", 1), *contacts(8_000, stage.partitions)])
    worker = stage.start_ready(**DEFAULTS)
    took_s = stage.wait_done(needs=worker, may_wait=True)
    assert took_s < 40.0, "the search for two contacts blocks their partitions"
    stage.wait_done(needs=worker)
    requests = stage.simulator.stats().requests["score"]
    assert worker.running
    assert worker.stop() == 0
    verdict = verify_outputs(stage)
    assert verdict.reasons() == {"refused_by_api": 2}
    rejected = {key: verdict.by_contact(key)[0] for key in ("WAF", "ODD")}
    assert {key: one.header("error-status") for key, one in rejected.items()} == {"WAF": "403", "ODD": "409"}
    assert {one.header("deferred") for one in rejected.values()} == {"2"}
    assert sum(requests.values()) <= 1 + 8 + 2 * 60
    assert verdict.paid_twice(stage.simulator.scored()) <= MAX_CONTROLS


def test_a_retry_after_delays_only_its_own_request_while_others_succeed(stage: WorkerHarness) -> None:
    worker = stage.start_ready(**DEFAULTS)
    warm_up(stage, worker)
    stage.simulator.add_fault(status=503, retry_after=120, times=1, min_contacts=1)
    stage.produce(contacts(8_000, stage.partitions))
    assert stage.wait_done(needs=worker) < 60.0
    assert worker.stop() == 0
    verdict = verify_outputs(stage)
    assert len(verdict.outputs) == stage.produced
    assert verdict.count("rejected") == 0
    assert billed_again(stage) <= MAX_CONTROLS


def test_a_failing_contact_is_deferred_and_the_partitions_continue(stage: WorkerHarness) -> None:
    """With the default rounds it is rejected after an hour: until then it is deferred, and all others are scored."""
    stage.simulator.configure(latency_ms=50)
    worker = stage.start_ready(**DEFAULTS, scoring__retry_delays_s=None)
    warm_up(stage, worker)
    stage.simulator.add_fault(contact_id="POISON", times=None, status=500)
    stage.produce([contact("POISON", 0), *contacts(8_000, stage.partitions)])
    ends, progress, began = stage.ends(), stage.watch(), time.monotonic()
    done_at: dict[int, float] = {}

    def all_done() -> bool:
        for number, offset in progress.by_partition().items():
            if offset == ends[number]:
                done_at.setdefault(number, time.monotonic() - began)
        return len(done_at) == stage.partitions

    stage.wait(all_done, "all partitions to be committed", needs=worker)
    progress.close()
    # A partition that is done after ten seconds was not blocked for longer.
    assert max(done_at[number] for number in (1, 2, 3)) < 10.0, done_at
    assert worker.stop() == 0
    verdict = verify_outputs(stage, may_wait=True)
    assert [message.key() for message in verdict.waiting.values()] == [b"POISON"]
    assert verdict.count("rejected") == 0
    assert billed_again(stage) <= MAX_CONTROLS


def test_a_shard_outage_is_billed_twice_and_then_once_a_round(
    make_stage: Callable[..., WorkerHarness],
) -> None:
    """Three of five contacts have no result until it is back."""
    stage = make_stage(retry_partitions=4)
    worker = stage.start_ready(**DEFAULTS, scoring__retry_delays_s="[15, 30]")
    warm_up(stage, worker)
    stage.simulator.add_fault(min_contacts=1, times=None, results=[{"do": "omit", "of": {"share": 0.6}}])
    stage.produce(contacts(4_000, stage.partitions))
    stage.wait_done(needs=worker, may_wait=True)
    assert stage.simulator.stats().contacts_scored - 500 <= 4_000 + 2_400 + MAX_CONTROLS
    stage.simulator.clear_faults()
    stage.wait_done(needs=worker)
    assert worker.stop() == 0
    verdict = verify_outputs(stage)
    assert len(verdict.outputs) == stage.produced
    assert verdict.count("rejected") == 0
    assert sum(output.header("deferred") is not None for output in verdict.outputs.values()) > 500
    assert stage.simulator.stats().contacts_scored - 500 <= 3 * 4_000
