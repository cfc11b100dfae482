from __future__ import annotations

import pytest

from stream_scorer.genesys.request_quota import WaitReason as QuotaWaitReason
from stream_scorer.scoring.circuit_breaker import OpenReason
from stream_scorer.scoring.wait_reasons import WaitReason, WaitTimer


def test_time_counts_for_the_reason_of_the_last_observation() -> None:
    timer = WaitTimer()
    observations = [
        (0.0, WaitReason.OWN_QUOTA),
        (0.5, WaitReason.OWN_QUOTA),
        (1.25, None),
        (9.0, WaitReason.CONCURRENCY_LIMIT),
        (9.25, WaitReason.SPEND_LIMIT),
    ]
    for now, reason in observations:
        timer.observe(reason, now)
    timer.observe(None, 9.5)
    assert timer.drain() == {
        WaitReason.OWN_QUOTA: 1.25,
        WaitReason.CONCURRENCY_LIMIT: 0.25,
        WaitReason.SPEND_LIMIT: 0.25,
    }
    assert timer.drain() == {}


def test_a_blocked_loop_counts_as_worker_busy() -> None:
    timer = WaitTimer()
    timer.observe(WaitReason.CONCURRENCY_LIMIT, 100.0)
    timer.observe(WaitReason.CONCURRENCY_LIMIT, 120.0)
    assert timer.drain() == {WaitReason.CONCURRENCY_LIMIT: 1.0, WaitReason.WORKER_BUSY: 19.0}


def test_no_reason_is_no_wait_even_after_a_long_loop() -> None:
    timer = WaitTimer()
    timer.observe(None, 100.0)
    timer.observe(None, 190.0)
    assert timer.drain() == {}


@pytest.mark.parametrize("reason", QuotaWaitReason)
def test_every_reason_of_the_quota_is_known(reason: QuotaWaitReason) -> None:
    assert WaitReason(reason).throttle_reason is OpenReason.QUOTA
    assert WaitReason(reason).label == f"quota: {reason}"


def test_only_time_ends_a_throttle() -> None:
    throttles = {wait: wait.throttle_reason for wait in WaitReason if wait.throttle_reason is not None}
    assert throttles == {
        WaitReason.RETRY_AFTER: OpenReason.QUOTA,
        WaitReason.SERVER_QUOTA: OpenReason.QUOTA,
        WaitReason.OWN_QUOTA: OpenReason.QUOTA,
        WaitReason.SPEND_LIMIT: OpenReason.SPEND_LIMIT,
    }
    assert WaitReason.SPEND_LIMIT.label == "spend_limit"
