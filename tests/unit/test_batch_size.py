"""Adaptive batch size: three failures halve it, a smaller success makes that a limit, time lifts the limit."""

from __future__ import annotations

import pytest

from stream_scorer.core.scoring.batch_size import BatchSize


def reduced(size: BatchSize, contacts: int = 1_000, now: float = 0.0) -> None:
    """Return a batch size after three time-outs in a row and a success with half of it."""
    for number in range(3):
        size.record_too_large(contacts, now + number, now + number + 0.5, is_certain=False)
    size.record_success(contacts // 2, now + 4.0)


def test_three_failures_in_a_row_halve_it_and_a_success_between_them_does_not() -> None:
    size = BatchSize(1_000)
    for at in (0.0, 1.0):
        size.record_too_large(1_000, at, at + 0.5, is_certain=False)
        assert size.next_size(at + 0.6, 0) == 1_000
    size.record_success(1_000, 2.0)
    for at in (3.0, 4.0):
        size.record_too_large(1_000, at, at + 0.5, is_certain=False)
    assert size.size == 1_000
    size.record_too_large(1_000, 5.0, 5.5, is_certain=False)
    assert size.size == 500


def test_one_413_is_enough() -> None:
    size = BatchSize(1_000)
    size.record_too_large(1_000, 0.0, 0.5, is_certain=True)
    assert (size.size, size.limit) == (500, 1_000)


def test_requests_in_flight_together_count_once() -> None:
    size = BatchSize(1_000)
    for answered_at in (30.0, 30.1, 30.2, 30.3):
        size.record_too_large(1_000, 0.0, answered_at, is_certain=False)
    assert size.size == 1_000


def test_between_the_first_failure_and_the_third_one_large_request_is_in_flight_at_a_time() -> None:
    size = BatchSize(1_000)
    assert size.next_size(0.0, largest_in_flight=1_000) == 1_000
    size.record_too_large(1_000, 0.0, 0.5, is_certain=False)
    assert size.next_size(1.0, largest_in_flight=0) == 1_000
    assert size.next_size(1.0, largest_in_flight=1_000) == 500
    assert size.next_size(1.0, largest_in_flight=500) == 1_000


def test_a_smaller_success_makes_the_half_a_limit_and_an_outage_sets_none() -> None:
    size = BatchSize(1_000)
    reduced(size)
    assert (size.size, size.limit) == (500, 500)
    down = BatchSize(1_000)
    for number, contacts in enumerate((1_000, 1_000, 1_000, 500, 500, 500, 250, 250, 250)):
        down.record_too_large(contacts, float(number), number + 0.5, is_certain=False)
    assert (down.size, down.limit) == (125, 1_000)
    down.restart()
    for now in range(11):
        down.record_success(down.size, 20.0 + now)
    assert (down.size, down.limit) == (1_000, 1_000)


def test_each_success_doubles_it_up_to_the_limit() -> None:
    size = BatchSize(1_000)
    size.restart()
    grown = []
    for now in range(11):
        grown.append(size.next_size(float(now), 0))
        size.record_success(grown[-1], float(now))
    assert grown == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_000]


def test_a_limit_is_tried_again_after_a_minute_then_two_four_and_up_to_an_hour() -> None:
    size = BatchSize(1_000)
    reduced(size)
    now, gaps, last = 4.0, [], 4.0
    while len(gaps) < 9:
        now += 0.5
        if size.next_size(now, 0) == 1_000:
            gaps.append(now - last)
            last = now
            assert size.next_size(now, 0) == 500, "one trial at a time"
            size.record_too_large(1_000, now, now, is_certain=False)
            assert size.size == 500, "a trial that fails halves nothing"
    assert gaps == [60.0, 120.0, 240.0, 480.0, 960.0, 1_920.0, 3_600.0, 3_600.0, 3_600.0]


def test_a_trial_that_succeeds_lifts_the_limit() -> None:
    size = BatchSize(1_000)
    reduced(size)
    reduced(size, 500, now=10.0)
    assert size.limit == 250
    trial = size.next_size(80.0, 0)
    assert trial == 500
    size.record_success(trial, 80.0)
    assert (size.limit, size.size) == (500, 500)
    assert size.next_size(139.0, 0) == 500
    assert size.next_size(140.0, 0) == 1_000


@pytest.mark.parametrize("is_certain", [False, True])
def test_a_single_contact_changes_nothing(*, is_certain: bool) -> None:
    size = BatchSize(1_000)
    for now in range(9):
        size.record_too_large(1, float(now), now + 0.5, is_certain=is_certain)
    assert size.size == 1_000
