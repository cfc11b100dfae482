"""Tests of the verifier: every kind of violation is planted in a valid state and found at its location.

`test_chaos_short.py` plants some of them on the topics of a real run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from expected_state import Memory
from scoring_harness import contact
from seed_records import (
    PLANTED,
    accept,
    forge_audit,
    lose,
    pay_nothing,
    receive_twice,
    redeliver,
    replay,
    swap,
    valid_state,
    wait,
)
from verifier import verdict, violations

if TYPE_CHECKING:
    from collections.abc import Callable

    from expected_state import ExpectedState


@pytest.fixture
def state() -> ExpectedState:
    return valid_state()


def test_a_valid_state_has_no_violations(state: ExpectedState) -> None:
    assert verdict(state) == ""


def test_a_contact_that_waits_in_one_retry_topic_is_not_lost(state: ExpectedState) -> None:
    wait(state)
    assert verdict(state) == ""
    wait(state, 2, group="another")
    assert verdict(state) == "", "it waits for another group"


def test_an_output_of_a_deferred_contact_need_not_stand_in_order(state: ExpectedState) -> None:
    swap(state)
    late = state.rows["scores"][0]
    state.rows["scores"][0] = late._replace(headers=(*late.headers, ("stream-scorer-deferred", b"1")))
    assert verdict(state) == ""


def test_a_replay_and_an_acceptance_are_good(state: ExpectedState) -> None:
    replay(state)
    assert verdict(state) == ""
    state.campaign = False  # the planner has not read the accepted score
    accept(state)
    assert verdict(state) == ""


def test_a_replay_with_changes_has_another_value(state: ExpectedState) -> None:
    replay(state, value=contact("C7", age=41).value, changes={"age": "41"})
    assert verdict(state) == ""


def test_a_redelivery_is_one_more_callback_and_one_more_receipt(state: ExpectedState) -> None:
    redeliver(state)
    redeliver(state, 1, place="callbacks-rejected/0/1")  # it was refused again
    redeliver(state, 2, place="callbacks-rejected/0/2", callback_id="new", body=b"new", retargeted="call")
    assert verdict(state) == ""


@pytest.mark.parametrize(("plant", "kind", "place"), PLANTED, ids=lambda value: getattr(value, "__name__", None))
def test_what_is_planted_is_found(
    state: ExpectedState, plant: Callable[[ExpectedState], None], kind: str, place: str
) -> None:
    plant(state)
    found = [violation for violation in violations(state) if violation.kind == kind]
    assert place in {violation.place for violation in found}, verdict(state)
    assert kind in verdict(state)


def test_everything_is_reported_not_only_the_first(state: ExpectedState) -> None:
    for plant in (lose, forge_audit, receive_twice, pay_nothing):
        plant(state)
    assert {violation.kind for violation in violations(state)} >= {"lost", "chain", "receipt twice", "unpaid"}


def test_what_a_kill_may_cost_is_allowed(state: ExpectedState) -> None:
    again = {**(state.account or {}), "C1": 3}
    assert verdict(replace(state, account=again, may_be_paid_again=2)) == ""
    assert "overpaid" in verdict(replace(state, account=again, may_be_paid_again=1))


def test_a_process_that_settles_has_not_grown(state: ExpectedState) -> None:
    state.memory.append(Memory("worker one", (60.0, 90.0, 120.0, *[150.0] * 30)))
    assert verdict(state) == ""
