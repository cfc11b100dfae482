"""Kills of campaign workers and jobs of the desk while rejected callbacks are redelivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from callback_rules import broken_callbacks
from callbacks_harness import score
from confluent_kafka import Producer
from decision_rules import broken_decisions, decisions_of, is_decided
from desk_harness import DeskHarness
from expected_state import ExpectedState, read_rows
from scoring_harness import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from callbacks_harness import CallbacksHarness

    from stream_scorer.local.receiver import Receiver

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(280)]

CALLBACKS = 60
ONE_BY_ONE = {"callbacks__max_contacts": "1"}


def read_campaign(desk: DeskHarness) -> ExpectedState:
    """Read the state of a campaign worker and its desk."""
    kinds = ("scores", "callbacks", "receipts")
    rows = read_rows(desk.stage, {**{kind: desk.stage.topics[kind] for kind in kinds}, "decisions": desk.topic})
    return ExpectedState({**rows, "features": [], "review": []}, {}, campaign=True)


def reject_all(stage: CallbacksHarness) -> None:
    """Put all callbacks on the rejected topic as the deliverer does."""
    producer = Producer({"bootstrap.servers": stage.bootstrap_servers})
    for one in stage.read("callbacks"):
        given = {
            "stream-scorer-source": f"{stage.topics['callbacks']}/{one.partition}/{one.offset}".encode(),
            "stream-scorer-error-reason": b"refused",
            **one.headers,
        }
        headers: Any = list(given.items())
        producer.produce(stage.topics["callbacks_rejected"], one.value, one.key, headers=headers)
    assert producer.flush(PATIENCE_S) == 0


def test_kills_of_workers_and_jobs(make_campaign: Callable[..., CallbacksHarness], receiver: Receiver) -> None:
    stage: Any = make_campaign(receiver.environment())
    desk = DeskHarness(stage)
    stage.put(score(f"c{n}") for n in range(CALLBACKS))
    worker = stage.start(name="one", **ONE_BY_ONE)
    stage.wait_receipts(CALLBACKS, needs=worker)
    reject_all(stage)
    replay = ("deliveries", "replay", "--since", "0", "--job", "monday", "--yes")
    for _ in range(3):
        done = len(stage.receipts())
        job = desk.start(*replay, "--rate", "20")
        wait_until(lambda done=done: len(stage.receipts()) > done, "a receipt of a callback that was delivered again")
        worker.kill()
        worker = stage.start(name="one", **ONE_BY_ONE)
        job.kill()
        job.communicate(timeout=PATIENCE_S)
    left = desk.row(*replay, "--rate", "100000")
    assert left["decided"] + left["skipped"].get("decided before", 0) == CALLBACKS
    stage.wait(lambda: len(stage.receipts()) >= 2 * CALLBACKS, "all receipts", needs=worker)
    assert worker.stop() == 0
    state = read_campaign(desk)
    assert [*broken_decisions(state), *broken_callbacks(state)] == []
    again = [row for row in state.rows["callbacks"] if is_decided(row)]
    assert len(decisions_of(state)) == len(again) == CALLBACKS
    # The successor of a killed worker repeats its deliveries in flight under the same id.
    assert min(one.accepted for one in receiver.callbacks().values()) == 2
