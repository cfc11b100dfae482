from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_scorer.core.scoring.backoff import next_delay_s


@pytest.mark.parametrize(
    ("attempt", "jitter", "delay_s"),
    [(1, 0.0, 1.0), (1, 0.5, 1.5), (2, 0.0, 2.0), (3, 0.0, 4.0), (3, 0.75, 7.0), (6, 0.0, 30.0), (10_000, 0.5, 45.0)],
)
def test_formula(attempt: int, jitter: float, delay_s: float) -> None:
    got = next_delay_s(attempt, base_s=2.0, max_s=60.0, retry_after_s=None, jitter=jitter)
    assert got == pytest.approx(delay_s)


@pytest.mark.parametrize("attempt", [1, 2, 10, 3_000])
def test_a_base_below_one_second_causes_no_burst(attempt: int) -> None:
    """A 429 without ``Retry-After`` is repeated without limit: its pause must not shrink to nothing."""
    assert next_delay_s(attempt, base_s=0.5, max_s=60.0, jitter=0.0) == 0.25


@pytest.mark.parametrize("retry_after_s", [0.0, -0.0, -3.0])
def test_a_retry_after_of_zero_is_ignored(retry_after_s: float) -> None:
    delays_s = [next_delay_s(n, base_s=2.0, max_s=60.0, retry_after_s=retry_after_s, jitter=0.5) for n in (1, 2, 3)]
    assert delays_s == [1.5, 3.0, 6.0]


@pytest.mark.parametrize("retry_after_s", [0.001, 0.5, 7.0, 3600.0, 86_400.0])
def test_retry_after_wins_uncut(retry_after_s: float) -> None:
    assert next_delay_s(3, base_s=2.0, max_s=60.0, retry_after_s=retry_after_s, jitter=0.9) == retry_after_s


@given(
    st.integers(1, 10**9),
    st.floats(0, 100),
    st.floats(0, 1e6),
    st.floats(0, 1, exclude_max=True),
)
def test_always_between_nothing_and_the_maximum(attempt: int, base_s: float, max_s: float, jitter: float) -> None:
    delay = next_delay_s(attempt, base_s=base_s, max_s=max_s, retry_after_s=None, jitter=jitter)
    assert 0 <= delay <= max_s
