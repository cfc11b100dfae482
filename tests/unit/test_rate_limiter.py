from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_scorer.core.rate_limiter import RateLimiter


def test_without_a_limit_nothing_waits() -> None:
    limiter = RateLimiter(None)
    limiter.acquire(0.0, 1_000_000)
    assert limiter.wait_s(0.0, 1_000_000) == 0.0
    assert limiter.limit is None


def test_waits_until_enough_has_left_the_window() -> None:
    limiter = RateLimiter(10)
    limiter.acquire(0.0, 4)
    limiter.acquire(20.0, 4)
    assert limiter.wait_s(30.0, 2) == 0.0
    assert limiter.wait_s(30.0, 3) == 30.0
    assert limiter.wait_s(30.0, 7) == 50.0
    assert limiter.wait_s(60.0, 3) == 0.0
    assert limiter.wait_s(60.0, 7) == 20.0


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_allows_nothing_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="the limit is"):
        RateLimiter(limit)


def test_what_can_never_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="over the limit"):
        RateLimiter(10).wait_s(0.0, 11)


@given(
    limit=st.integers(1, 50),
    wanted=st.lists(st.tuples(st.floats(0, 40), st.integers(1, 50)), max_size=60),
)
def test_never_more_than_the_limit_in_any_minute(limit: int, wanted: list[tuple[float, int]]) -> None:
    limiter, now, sent = RateLimiter(limit), 0.0, list[tuple[float, int]]()
    for pause_s, asked in wanted:
        now += pause_s
        amount = min(asked, limit)
        wait_s = limiter.wait_s(now, amount)
        now += wait_s
        while limiter.wait_s(now, amount) > 0:
            now += 1e-9 * max(1.0, now)
        limiter.acquire(now, amount)
        sent.append((now, amount))
    for start, _ in sent:
        assert sum(amount for at, amount in sent if start <= at and start + 60.0 > at) <= limit
    assert len(limiter._window._entries) <= limit
