from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_scorer.core.scoring.spend_limiter import SpendLimiter


def test_without_a_ceiling_nothing_waits() -> None:
    budget = SpendLimiter(None)
    budget.acquire(1_000_000, 0.0)
    assert budget.wait_s(1_000_000, 0.0) == 0.0
    assert budget.ceiling is None


def test_waits_until_enough_has_left_the_window() -> None:
    budget = SpendLimiter(10)
    budget.acquire(4, 0.0)
    budget.acquire(4, 20.0)
    assert budget.wait_s(2, 30.0) == 0.0
    assert budget.wait_s(3, 30.0) == 30.0
    assert budget.wait_s(7, 30.0) == 50.0
    assert budget.wait_s(3, 60.0) == 0.0
    assert budget.wait_s(7, 60.0) == 20.0


@pytest.mark.parametrize("ceiling", [0, -1])
def test_a_ceiling_that_allows_nothing_is_refused(ceiling: int) -> None:
    with pytest.raises(ValueError, match="max_contacts_per_minute"):
        SpendLimiter(ceiling)


def test_what_can_never_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="over the ceiling"):
        SpendLimiter(10).wait_s(11, 0.0)


@given(
    ceiling=st.integers(1, 50),
    wanted=st.lists(st.tuples(st.floats(0, 40), st.integers(1, 50)), max_size=60),
)
def test_never_more_than_the_ceiling_in_any_minute(ceiling: int, wanted: list[tuple[float, int]]) -> None:
    budget, now, sent = SpendLimiter(ceiling), 0.0, list[tuple[float, int]]()
    for pause_s, asked in wanted:
        now += pause_s
        amount = min(asked, ceiling)
        wait_s = budget.wait_s(amount, now)
        now += wait_s
        while budget.wait_s(amount, now) > 0:
            now += 1e-9 * max(1.0, now)
        budget.acquire(amount, now)
        sent.append((now, amount))
    for start, _ in sent:
        assert sum(amount for at, amount in sent if start <= at and start + 60.0 > at) <= ceiling
    assert len(budget._sent) <= ceiling
