from __future__ import annotations

import itertools
import math
from collections import deque
from typing import TYPE_CHECKING

import pytest

from stream_scorer.core.scoring.api_response import RateLimitHeaders
from stream_scorer.genesys.request_quota import Quota, WaitReason

if TYPE_CHECKING:
    from collections.abc import Callable

STEP_S = 0.01


class Server:
    """A quota of fixed windows like that of the platform; ``reset`` is rounded to whole seconds by ``rounding``."""

    def __init__(self, allowed: int, rounding: Callable[[float], float], starts_at: float) -> None:
        self.allowed, self.rounding = allowed, rounding
        self.window = starts_at
        self.count = 0
        self.refused: list[float] = []

    def take(self, now: float) -> RateLimitHeaders:
        while now >= self.window + 60.0:
            self.window, self.count = self.window + 60.0, 0
        self.count += 1
        if self.count > self.allowed:
            self.refused.append(now)
        return RateLimitHeaders(self.count, self.allowed, self.rounding(self.window + 60.0 - now))


def backlog(quota: Quota, server: Server, *, latency_s: float, slots: int, for_s: float) -> list[float]:
    """Send whenever a slot and the quota allow it; return the arrival times at the server."""
    now, taken = 1000.0, []
    answers: deque[tuple[float, RateLimitHeaders]] = deque()
    end = now + for_s
    while now < end:
        while answers and answers[0][0] <= now:
            quota.update(answers.popleft()[1], now)
        while len(answers) < slots and quota.wait_s(now) == 0.0:
            quota.sent(now)
            arrival = now + latency_s / 2
            taken.append(arrival)
            answers.append((now + latency_s, server.take(arrival)))
        now += STEP_S
    return taken


@pytest.mark.parametrize("rounding", [math.floor, math.ceil, round, float], ids=["floor", "ceil", "round", "exact"])
@pytest.mark.parametrize("latency_s", [0.02, 0.2, 1.3])
@pytest.mark.parametrize("phase_s", [0.0, 17.3, 59.7])
def test_backlog_uses_the_quota_and_earns_no_429(
    rounding: Callable[[float], float], latency_s: float, phase_s: float
) -> None:
    server = Server(300, rounding, 1000.0 - phase_s)
    taken = backlog(Quota(300), server, latency_s=latency_s, slots=8, for_s=300.0)
    assert server.refused == []
    steady = [at for at in taken if 1060.0 <= at < 1300.0]
    assert len(steady) >= 0.97 * 300 * 4


def test_lower_allowance_of_the_server_wins_and_is_remembered_over_its_reset() -> None:
    server = Server(100, math.floor, 1000.0)
    taken = backlog(Quota(300), server, latency_s=0.2, slots=8, for_s=240.0)
    assert server.refused == []
    assert 0.96 * 400 <= len(taken) <= 400


def test_used_up_by_another_worker_before_the_start() -> None:
    server = Server(300, math.floor, 960.0)
    server.count = 295
    backlog(Quota(300), server, latency_s=0.5, slots=8, for_s=120.0)
    assert len(server.refused) <= 8 - 5  # at most those in flight before the first response
    assert all(at < 1001.0 for at in server.refused)


def test_own_count_holds_without_any_reading() -> None:
    quota = Quota(3)
    for at in (0.0, 1.0, 2.0):
        assert quota.wait_s(at) == 0.0
        quota.sent(at)
        quota.answered()
    assert quota.remaining(2.0) == 0
    assert quota.reason(2.0) is WaitReason.OWN_QUOTA
    assert quota.wait_s(2.0) == pytest.approx(58.5)
    assert quota.wait_s(60.5) == 0.0
    assert quota.remaining(60.5) == 1
    assert quota.reason(60.5) is None


def test_requests_under_way_count_until_their_answers_come() -> None:
    quota = Quota(300)
    for at in (0.0, 0.1, 0.2):
        quota.sent(at)
    quota.update(RateLimitHeaders(count=8, allowed=10, reset_s=30), 0.3)  # the two others may be in the 8 or not
    assert quota.remaining(0.3) == 0
    assert quota.reason(0.3) is WaitReason.SERVER_QUOTA
    quota.update(RateLimitHeaders(count=9, allowed=10, reset_s=30), 0.4)
    quota.update(RateLimitHeaders(count=8, allowed=10, reset_s=30), 0.4)  # out of order: older than the one before
    assert quota.remaining(0.4) == 1
    assert quota.wait_s(0.4) == 0.0


def test_a_new_window_without_a_response_has_no_more_requests_than_the_last_one() -> None:
    quota = Quota(300)
    quota.sent(0.0)
    quota.update(RateLimitHeaders(count=2, allowed=2, reset_s=9), 0.0)
    assert quota.wait_s(5.0) == pytest.approx(5.0)  # until 10.0
    for at in (10.0, 11.0):
        assert quota.wait_s(at) == 0.0
        quota.sent(at)
    assert quota.remaining(12.0) == 0
    assert quota.reason(12.0) is WaitReason.SERVER_QUOTA
    assert quota.wait_s(12.0) == pytest.approx(10.0 + 60.5 - 12.0)  # when the first one leaves the window
    quota.update(RateLimitHeaders(count=1, allowed=2, reset_s=40), 12.5)
    assert quota.wait_s(12.5) == pytest.approx(41.0)
    quota.update(RateLimitHeaders(count=2, allowed=4, reset_s=40), 12.5)
    assert quota.wait_s(12.5) == 0.0


def test_a_window_smaller_than_the_slots_earns_no_429() -> None:
    server = Server(5, math.floor, 1000.0)
    taken = backlog(Quota(300), server, latency_s=1.3, slots=8, for_s=300.0)
    assert len(server.refused) <= 3  # the first requests were sent before the limit was known
    assert all(at < 1060.0 for at in server.refused)
    assert len([at for at in taken if at >= 1060.0]) >= 4 * 5 - 1


def test_lost_answers_are_forgotten_after_a_window() -> None:
    quota = Quota(300)
    quota.sent(0.0)
    quota.sent(0.0)
    quota.update(RateLimitHeaders(count=9, allowed=10, reset_s=59.5), 1.0)
    assert quota.remaining(2.0) == 0
    assert quota.wait_s(60.5) == 0.0


def test_nothing_allowed_still_lets_one_request_find_out() -> None:
    quota = Quota(300)
    quota.sent(0.0)
    quota.update(RateLimitHeaders(count=0, allowed=0, reset_s=10), 0.0)
    assert quota.wait_s(5.0) == pytest.approx(6.0)
    assert quota.wait_s(11.0) == 0.0
    assert quota.remaining(11.0) == 1


def test_absurd_reset_is_believed_for_one_window_only() -> None:
    quota = Quota(300)
    quota.sent(0.0)
    quota.update(RateLimitHeaders(count=300, allowed=300, reset_s=86_400), 0.0)
    assert 59.0 < quota.wait_s(0.0) <= 61.0


def test_retry_after_blocks_and_only_moves_later() -> None:
    quota = Quota(300)
    quota.block_until(50.0)
    quota.block_until(20.0)
    assert quota.wait_s(10.0) == pytest.approx(40.0)
    assert quota.reason(10.0) is WaitReason.RETRY_AFTER
    assert quota.remaining(10.0) == 0
    assert not quota.may_send_partial_batch(10.0)
    assert quota.wait_s(50.0) == 0.0


def trickle(quota: Quota, *, every_s: float, linger_s: float, for_s: float) -> tuple[list[float], list[float]]:
    """Add a contact at this interval; return the send times and the wait of each contact."""
    sends, waits, waiting = [], [], []
    for tick in range(round(for_s / STEP_S)):
        now = tick * STEP_S
        if tick % round(every_s / STEP_S) == 0:
            waiting.append(now)
        if waiting and now - waiting[0] >= linger_s and quota.wait_s(now) == 0.0 and quota.may_send_partial_batch(now):
            quota.sent_partial_batch(now)
            quota.sent(now)
            quota.answered()
            sends.append(now)
            waits += [now - at for at in waiting]
            waiting = []
    return sends, waits


def test_quiet_stream_does_not_burn_the_quota() -> None:
    sends, waits = trickle(Quota(300), every_s=0.2, linger_s=0.2, for_s=300.0)
    for start in range(0, 241, 20):
        assert sum(1 for at in sends if start <= at < start + 60) <= 60
    assert max(waits) < 1.5


def test_lone_contacts_go_out_as_soon_as_they_have_lingered() -> None:
    sends, waits = trickle(Quota(300), every_s=5.0, linger_s=0.2, for_s=60.0)
    assert len(sends) == 12
    assert max(waits) < 0.25


def test_early_batches_get_rarer_as_the_quota_runs_out_but_never_stop() -> None:
    quota = Quota(300)
    for _ in range(295):
        quota.sent(0.0)
        quota.answered()
    assert quota.may_send_partial_batch(0.0)
    quota.sent_partial_batch(0.0)
    assert not quota.may_send_partial_batch(9.9)
    assert quota.may_send_partial_batch(10.0)


def test_many_open_batches_share_the_gap() -> None:
    quota = Quota(300)
    quota.sent_partial_batch(100.0)
    assert not quota.may_send_partial_batch(100.9)
    assert quota.may_send_partial_batch(100.5, batches=2)
    assert not quota.may_send_partial_batch(100.3, batches=3)
    assert quota.may_send_partial_batch(100.01, batches=100)


def test_five_and_more_open_batches_use_98_percent_of_the_quota_evenly_after_a_short_burst() -> None:
    quota, now, times = Quota(300), 0.0, []
    while now < 120.0:
        if quota.wait_s(now) == 0.0 and quota.may_send_partial_batch(now, batches=40):
            quota.sent_partial_batch(now)
            quota.sent(now)
            quota.answered()
            times.append(now)
        now = round(now + 0.01, 2)
    assert sum(at < 1.0 for at in times) <= 10, "no burst that a pause follows"
    assert 290 <= sum(at < 60.0 for at in times) <= 300
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= 0.5
    assert 0.97 * 600 <= len(times) <= 600


def test_allowed_is_the_lower_of_both() -> None:
    quota = Quota(300)
    assert quota.allowed() == 300
    quota.update(RateLimitHeaders(count=0, allowed=100, reset_s=30), 0.0)
    assert quota.allowed() == 100
    quota.update(RateLimitHeaders(count=0, allowed=900, reset_s=30), 1.0)
    assert quota.allowed() == 300


class TestForecast:
    """``exhausted_in_s``: remaining / (requests of the last 10 s / 10 s), 60 if the window ends before that."""

    def quota(self, *, per_s: int, for_s: int = 20, limit: int = 300) -> tuple[Quota, float]:
        quota = Quota(limit)
        for tick in range(per_s * for_s):
            quota.sent(tick / per_s)
            quota.answered()
        return quota, (per_s * for_s - 1) / per_s

    def test_an_idle_worker_never_uses_it_up(self) -> None:
        assert Quota(300).exhausted_in_s(100.0) == 60.0

    def test_at_the_present_pace(self) -> None:
        quota, now = self.quota(per_s=10)
        assert quota.remaining(now) == 100
        assert quota.exhausted_in_s(now) == pytest.approx(10.0, rel=0.02)

    def test_a_pace_that_lasts_is_no_exhaustion(self) -> None:
        quota, now = self.quota(per_s=2)
        assert quota.exhausted_in_s(now) == 60.0

    def test_the_pace_is_that_of_the_last_ten_seconds(self) -> None:
        quota, now = self.quota(per_s=10)
        assert quota.exhausted_in_s(now + 5.0) == pytest.approx(20.0, rel=0.03)
        assert quota.exhausted_in_s(now + 11.0) == 60.0

    def test_used_up_is_zero_by_own_count_and_by_the_apis(self) -> None:
        quota, now = self.quota(per_s=15)
        assert quota.exhausted_in_s(now) == 0.0
        quota, now = self.quota(per_s=10)
        quota.block_until(now + 5.0)
        assert quota.exhausted_in_s(now) == 0.0

    def test_the_windows_end_comes_first(self) -> None:
        quota, now = self.quota(per_s=10, limit=10_000)
        quota.update(RateLimitHeaders(count=200, allowed=300, reset_s=15), now)
        assert quota.exhausted_in_s(now) == pytest.approx(10.0, rel=0.02)
        quota, now = self.quota(per_s=10, limit=10_000)
        quota.update(RateLimitHeaders(count=200, allowed=300, reset_s=8), now)
        assert quota.exhausted_in_s(now) == 60.0

    def test_the_lower_of_both_counts(self) -> None:
        quota, now = self.quota(per_s=10)
        quota.update(RateLimitHeaders(count=250, allowed=300, reset_s=30), now)
        assert quota.exhausted_in_s(now) == pytest.approx(5.0, rel=0.02)
