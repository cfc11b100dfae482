from __future__ import annotations

import pytest

from stream_scorer.genesys.quota import WaitReason
from stream_scorer.scoring.circuit_breaker import Cause
from stream_scorer.scoring.wait_reasons import Wait, Waits


def test_time_counts_for_the_reason_that_held_since_the_last_look() -> None:
    waits = Waits()
    looks = [(0.0, Wait.OWN_QUOTA), (0.5, Wait.OWN_QUOTA), (1.25, None), (9.0, Wait.NO_SLOT), (9.25, Wait.BUDGET)]
    for now, reason in looks:
        waits.see(reason, now)
    waits.see(None, 9.5)
    assert waits.take() == {Wait.OWN_QUOTA: 1.25, Wait.NO_SLOT: 0.25, Wait.BUDGET: 0.25}
    assert waits.take() == {}


def test_a_loop_that_was_held_up_has_itself_to_blame() -> None:
    waits = Waits()
    waits.see(Wait.NO_SLOT, 100.0)
    waits.see(Wait.NO_SLOT, 120.0)
    assert waits.take() == {Wait.NO_SLOT: 1.0, Wait.LOOP: 19.0}


def test_nothing_kept_back_is_no_wait_however_long_the_loop_took() -> None:
    waits = Waits()
    waits.see(None, 100.0)
    waits.see(None, 190.0)
    assert waits.take() == {}


@pytest.mark.parametrize("reason", WaitReason)
def test_every_reason_of_the_quota_is_known(reason: WaitReason) -> None:
    assert Wait(reason).cause is Cause.QUOTA
    assert Wait(reason).said == f"quota: {reason}"


def test_only_time_ends_a_pause() -> None:
    pauses = {wait: wait.cause for wait in Wait if wait.cause is not None}
    assert pauses == {
        Wait.RETRY_AFTER: Cause.QUOTA,
        Wait.SERVER_QUOTA: Cause.QUOTA,
        Wait.OWN_QUOTA: Cause.QUOTA,
        Wait.BUDGET: Cause.BUDGET,
    }
    assert Wait.BUDGET.said == "budget"
