"""A worker that is stopped in any state causes no contact to be billed twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from output_verifier import verify_outputs
from scoring_harness import contact, contacts

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_harness import WorkerHarness

    from stream_scorer.local.simulator import Simulator

pytestmark = pytest.mark.kafka
CONTACTS = 3_000
# A minute of a process.
MAX_CONTROLS = 20


@pytest.fixture
def stage(make_stage: Callable[..., WorkerHarness], make_simulator: Callable[..., Simulator]) -> WorkerHarness:
    """One partition, whose first contacts block all others, and an API slow enough for a stop in between."""
    return make_stage(partitions=1, simulator=make_simulator(latency_ms=150))


def stop_and_go_on(stage: WorkerHarness, *, after: int) -> int:
    """Stop a worker once so many contacts are billed, start another; return how many were billed again."""
    worker = stage.start_ready()
    stage.wait(lambda: stage.simulator.stats().contacts_scored >= after, "contacts that are paid for", needs=worker)
    assert worker.stop() == 0, worker.log()
    [drained] = worker.said("drained")
    assert drained["contacts_sent_again"] == 0
    assert verify_outputs(stage, everything=False, may_wait=True).paid_twice(stage.simulator.scored()) <= MAX_CONTROLS
    successor = stage.start_ready()
    stage.produce([contact("the-last-one")])  # a deferred contact waits for a control
    stage.wait_done(needs=successor)
    assert successor.stop() == 0
    return verify_outputs(stage).paid_twice(stage.simulator.scored())


def test_stop_during_a_bisection(stage: WorkerHarness) -> None:
    stage.produce(contact("REFUSE-1" if n == 5 else f"C-{n}") for n in range(CONTACTS))
    assert stop_and_go_on(stage, after=CONTACTS - 1_000) <= 2 * MAX_CONTROLS


def test_stop_before_a_retry_is_due(stage: WorkerHarness) -> None:
    stage.simulator.add_fault(contact_id="C-000003", status=503, retry_after=600)
    stage.produce(contacts(CONTACTS, 1))
    assert stop_and_go_on(stage, after=CONTACTS - 1_000) == 0
