"""Lag, rate and time left of a group, from two readings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stream_scorer.core.desk.group_lag import (
    GroupMember,
    GroupOffsets,
    Pace,
    PartitionOffsets,
    Reading,
    duration_text,
    group_pace,
    partition_paces,
)


def reading(at: float, *partitions: tuple[int, int | None, int]) -> Reading:
    offsets = {number: PartitionOffsets(*one) for number, one in enumerate(partitions)}
    return Reading(at, (GroupOffsets("scoring", "group", "topic", offsets),))


def test_the_lag_counts_uncommitted_records_that_still_exist() -> None:
    assert PartitionOffsets(0, 40, 100).lag == 60
    assert PartitionOffsets(5, None, 100).lag == 95
    assert PartitionOffsets(50, 40, 100).lag == 50, "what retention has deleted cannot be read"
    assert PartitionOffsets(0, 101, 100).lag == 0
    assert reading(0.0, (0, 1, 3), (0, 0, 7)).lag == 9


def test_a_group_with_records_and_without_members_is_stopped() -> None:
    [busy] = reading(0.0, (0, 1, 3)).groups
    [idle] = reading(0.0, (0, 3, 3)).groups
    member = GroupMember("scorer-0", (0,))
    assert [replace(one, members=()).is_stopped for one in (busy, idle)] == [True, False]
    assert replace(idle, members=(), waiting={"retry": 1}).is_stopped
    assert not replace(busy, members=(member,)).is_stopped
    assert not busy.is_stopped, "not known"
    assert [replace(busy, members=(member,)).owners(number) for number in (0, 1)] == [("scorer-0",), ()]


def test_the_rate_comes_from_commits_and_the_remaining_time_from_the_lag() -> None:
    before, after = reading(10.0, (0, 0, 1_000), (0, 50, 50)), reading(12.0, (0, 400, 1_100), (0, 50, 50))
    assert group_pace(before, after, "scoring") == Pace(700, 200.0, 4.7)
    assert partition_paces(before, after, "scoring") == {0: Pace(700, 200.0, 4.7), 1: Pace(0, 0.0, 0.0)}


def test_a_lag_that_does_not_fall_has_no_time_left() -> None:
    before, after = reading(10.0, (0, 0, 1_000)), reading(11.0, (0, 400, 1_400))
    assert group_pace(before, after, "scoring") == Pace(1_000, 400.0, None)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, reading(5.0, (0, 3, 4))),
        (reading(1.0, (0, 3, 4), (0, 0, 9)), reading(5.0, (0, 3, 4))),
        (Reading(1.0), reading(5.0, (0, 3, 4))),
        (reading(5.0, (0, 3, 4)), reading(5.0, (0, 3, 4))),
    ],
    ids=["first", "another number of partitions", "no commits before", "no time between"],
)
def test_without_a_reading_to_compare_only_the_lag_is_known(before: Reading | None, after: Reading) -> None:
    assert group_pace(before, after, "scoring") == Pace(1)


def test_a_group_without_lag_needs_no_second_reading() -> None:
    after = reading(1.0, (0, 4, 4))
    assert group_pace(None, after, "scoring") == Pace(0, None, 0.0)
    assert partition_paces(None, after, "scoring") == {0: Pace(0, None, 0.0)}
    assert group_pace(None, after, "planner") == Pace(0)
    assert partition_paces(None, after, "planner") == {}


def test_reset_commits_cause_no_negative_rate() -> None:
    assert group_pace(reading(0.0, (0, 9, 10)), reading(1.0, (0, 2, 10)), "scoring") == Pace(8, 0.0, None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (119.4, "119 s"),
        (120.0, "2 min"),
        (3_599.0, "60 min"),
        (7_500.0, "2 h 5 min"),
        (266_400.0, "3 d 2 h"),
        (10**9, "11,574 d 1 h"),
    ],
)
def test_a_duration_is_readable(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
