"""Split of a request: first at the borders of partitions, then by the results of the bisection."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_core import contact, ids

from stream_scorer.core.scoring.batcher import Batch, BatchKey
from stream_scorer.core.scoring.request import (
    Request,
    bisect,
    continue_search,
    first_request,
    one_by_one,
    remaining,
    split_in_two,
    take_first,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_scorer.core.scoring.types import Contact

OWN = BatchKey(None, version_from_event=False)


def of_partitions(*partitions: int) -> tuple[Contact, ...]:
    return tuple(contact(f"c{number}", number, one) for number, one in enumerate(partitions))


def request(contacts: Sequence[Contact]) -> Request:
    return Request("sent", OWN, tuple(contacts))


def partitions_of(contacts: Sequence[Contact]) -> list[int]:
    return [one.record.partition for one in contacts]


def test_a_batch_is_sorted_by_partition_and_keeps_the_order_in_each() -> None:
    whole = first_request(Batch(OWN, of_partitions(2, 0, 2, 1, 0), 0.0), ids())
    assert [(one.record.partition, one.record.offset) for one in whole.contacts] == [
        (0, 1),
        (0, 4),
        (1, 3),
        (2, 0),
        (2, 2),
    ]


@pytest.mark.parametrize(
    ("partitions", "first"),
    [
        ([0, 0, 0, 0], [0, 0]),
        ([0, 0, 0, 1], [0, 0, 0]),
        ([0, 1, 1, 1], [0]),
        ([0, 0, 1, 2, 2, 2], [0, 0, 1]),
        ([0, 1, 1, 1, 1, 2, 2, 2], [0, 1, 1, 1, 1]),
    ],
)
def test_a_request_is_divided_at_the_border_of_partitions_that_is_nearest_to_its_middle(
    partitions: list[int], first: list[int]
) -> None:
    halves = split_in_two(request(of_partitions(*partitions)), ids())
    assert [partitions_of(half.contacts) for half in halves] == [first, partitions[len(first) :]]
    (half,) = bisect(request(of_partitions(*partitions)), ids())
    assert partitions_of(half.contacts) == first


def test_only_a_large_request_is_sent_as_two_halves_at_once() -> None:
    assert [len(half.contacts) for half in bisect(request(of_partitions(*[0] * 129)), ids())] == [64, 65]
    (half,) = bisect(request(of_partitions(*[0] * 128)), ids())
    assert (len(half.contacts), len(half.sibling)) == (64, 64)


@pytest.mark.parametrize(
    ("cleared", "found", "size"), [(0, 0, 32), (100, 0, 32), (0, 5, 1), (3, 3, 1), (9, 1, 7), (99, 1, 32), (27, 3, 7)]
)
def test_the_first_group_has_as_many_contacts_as_the_share_found_so_far_calls_for(
    cleared: int, found: int, size: int
) -> None:
    """ln 2 / p of them for the share p; half of them if none or few were found."""
    of = replace(request(of_partitions(*[0] * 64)), cleared=cleared, found=found)
    (half,) = bisect(of, ids())
    assert (len(half.contacts), len(half.sibling)) == (size, 64 - size)
    assert (half.cleared, half.found) == (cleared, found)


def test_a_success_counts_its_contacts_as_cleared_and_the_search_goes_on_with_that() -> None:
    of = replace(request(of_partitions(0, 0)), sibling=of_partitions(*[0] * 8), cleared=2, found=1)
    (half,) = continue_search(of, ids())
    assert (half.cleared, half.found, len(half.contacts)) == (4, 1, 3)


def searched(bad: set[int], amount: int) -> tuple[set[int], int]:
    """The contacts found by a bisection of so many, and the requests that it took."""
    new_id, found, sent = ids(), set(), 0
    waiting = [request(of_partitions(*[0] * amount))]
    while waiting:
        of = waiting.pop(0)
        sent += 1
        if not bad & {one.record.offset for one in of.contacts}:
            waiting += continue_search(of, new_id)
        elif of.is_single:
            found.add(of.contacts[0].record.offset)
            waiting += remaining(replace(of, found=of.found + 1), new_id)
        else:
            waiting += bisect(of, new_id)
    return found, sent


@settings(max_examples=30)
@given(bad=st.sets(st.integers(0, 999), min_size=1, max_size=10))
def test_it_finds_all_and_only_the_bad_within_its_limit_of_requests(bad: set[int]) -> None:
    found, sent = searched(bad, 1_000)
    assert found == bad
    assert sent <= (16 if len(bad) == 1 else 105)


def test_where_all_fail_each_costs_little_more_than_one_request() -> None:
    found, sent = searched(set(range(500)), 500)
    assert len(found) == 500
    assert sent <= 1.15 * 500


def test_five_percent_cost_less_than_by_halves_of_equal_size() -> None:
    bad = set(random.Random(3).sample(range(1_000), 50))  # noqa: S311 - every run has the same
    found, sent = searched(bad, 1_000)
    assert found == bad
    assert sent <= 370


def test_the_first_contacts_are_taken_and_nothing_is_lost() -> None:
    a, b, c, d, e, f, g = of_partitions(*[0] * 7)
    whole = replace(request([a, b, c]), sibling=(d,), postponed=(e,), named=(f, g), bisecting=True)
    first, rest = take_first(whole, 2, ids())
    assert (first.contacts, first.all_contacts, rest.contacts) == ((a, b), (a, b), (c, d, e, f, g))
    assert len({whole.batch_id, first.batch_id, rest.batch_id}) == 3
    assert first.bisecting
    assert rest.bisecting
    assert [one.contacts for one in one_by_one(whole, ids())] == [(one,) for one in (a, b, c, d, e, f, g)]


def test_what_is_left_of_a_request_whose_contacts_went_away() -> None:
    a, b, c, d = of_partitions(0, 0, 1, 1)
    whole = replace(request([a, b]), sibling=(c,), named=(d,))
    kept = whole.filter(lambda one: one.record.partition == 1)
    assert kept is not None
    assert (kept.contacts, kept.sibling, kept.named) == ((c, d), (), ())
    assert whole.filter(lambda _: False) is None
