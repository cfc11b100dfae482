from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_core import TOPIC, contact

from stream_scorer.core.records import Partition
from stream_scorer.core.scoring import batcher as batcher_module
from stream_scorer.core.scoring.batcher import Batch, Batcher, BatchKey
from stream_scorer.genesys.wire import body_overhead, build_body

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from stream_scorer.core.scoring.types import Contact


def batcher(max_contacts: int = 1_000, max_body_bytes: int = 512_000, linger_s: float = 0.2) -> Batcher:
    return Batcher(
        max_contacts=max_contacts, max_body_bytes=max_body_bytes, overhead_bytes=body_overhead, linger_s=linger_s
    )


def ids_of(batch: Batch | None) -> list[str]:
    assert batch is not None
    return [one.contact_id for one in batch.contacts]


def sized(contact_id: str, size: int, **more: Any) -> Contact:
    return contact(contact_id, body=b"x" * size, **more)


class TestFull:
    def test_full_by_contacts(self) -> None:
        batches = batcher(max_contacts=2)
        batches.add(contact("a"), 0.0)
        assert batches.take_full() is None
        batches.add(contact("b"), 0.0)
        assert batches.has_full
        assert ids_of(batches.take_full()) == ["a", "b"]
        assert batches.take_full() is None
        assert batches.waiting == 0

    @pytest.mark.parametrize("version", [None, "v7", 'v"ü'])
    @pytest.mark.parametrize(("spare", "requests"), [(0, 1), (1, 1), (-1, 2)])
    def test_the_limit_in_bytes_is_exact(self, version: str | None, spare: int, requests: int) -> None:
        contacts = [sized(str(number), 100, version=version) for number in range(3)]
        exact = len(build_body([one.body for one in contacts], version))
        batches = batcher(max_body_bytes=exact + spare)
        for one in contacts:
            batches.add(one, 0.0)
        taken = []
        while (batch := batches.take_any()) is not None:
            taken.append(len(build_body([one.body for one in batch.contacts], version)))
        assert len(taken) == requests
        assert max(taken) <= exact + spare

    def test_fits_is_exact(self) -> None:
        limit = 1_000
        room = limit - body_overhead(None)
        assert batcher(max_body_bytes=limit).fits(sized("a", room))
        assert not batcher(max_body_bytes=limit).fits(sized("a", room + 1))
        assert not batcher(max_body_bytes=limit).fits(sized("a", room, version="v"))

    def test_a_batch_with_no_room_for_the_next_contact_is_full(self) -> None:
        """A batch of contacts over 512 bytes never fills to the last byte: it must not wait to become due."""
        batches = batcher(max_body_bytes=10_000)
        for number in range(14):
            batches.add(sized(str(number), 700), 0.0)
        assert not batches.has_full
        batches.add(sized("one too many", 700), 0.0)
        assert ids_of(batches.take_full()) == [str(number) for number in range(14)]
        assert ids_of(batches.take_any()) == ["one too many"]

    def test_one_large_contact_does_not_close_a_batch_that_is_half_empty(self) -> None:
        batches = batcher(max_body_bytes=10_000)
        batches.add(sized("small", 3_000), 0.0)
        batches.add(sized("large", 8_000), 0.0)
        assert not batches.has_full
        batches.add(sized("small too", 3_000), 0.0)
        assert ids_of(batches.take_any()) == ["small", "small too"]

    def test_the_oldest_full_batch_comes_first(self) -> None:
        batches = batcher(max_contacts=1)
        for name in "abc":
            batches.add(contact(name), 0.0)
        assert [ids_of(batches.take_full()) for _ in range(3)] == [["a"], ["b"], ["c"]]


class TestDue:
    def test_due_after_the_linger_of_its_first_contact(self) -> None:
        batches = batcher(linger_s=0.2)
        assert batches.due_at() is None
        batches.add(contact("a"), 10.0)
        batches.add(contact("b"), 10.15)
        assert batches.due_at() == pytest.approx(10.2)
        assert batches.take_due(10.19) is None
        batch = batches.take_due(10.21)
        assert ids_of(batch) == ["a", "b"]
        assert batch is not None
        assert batch.opened_at == 10.0
        assert batches.due_at() is None

    def test_the_batch_that_lingered_longest_is_taken_of_all_lanes(self) -> None:
        batches = batcher(linger_s=1.0)
        batches.add(contact("a", version="2"), 0.0)
        batches.add(contact("b", version="1"), 0.5)
        assert ids_of(batches.take_due(9.0)) == ["a"]
        assert batches.due_at() == 1.5
        assert ids_of(batches.take_due(9.0)) == ["b"]

    def test_a_full_batch_is_not_due_but_taken_as_any(self) -> None:
        batches = batcher(max_contacts=1)
        batches.add(contact("a"), 0.0)
        assert batches.take_due(99.0) is None
        assert ids_of(batches.take_any()) == ["a"]
        assert batches.take_any() is None

    def test_any_needs_no_linger(self) -> None:
        batches = batcher(linger_s=60.0)
        batches.add(contact("a"), 0.0)
        assert ids_of(batches.take_any()) == ["a"]


class TestKeys:
    def test_one_lane_a_batch(self) -> None:
        batches = batcher()
        batches.add(contact("a", version="1"), 0.0)
        batches.add(contact("b", version="2"), 0.1)
        batches.add(contact("c", version="1", from_event=True), 0.2)
        batches.add(contact("d", version="1"), 0.3)
        taken = [batches.take_any() for _ in range(3)]
        assert [ids_of(batch) for batch in taken] == [["a", "d"], ["b"], ["c"]]
        keys = [batch.key for batch in taken if batch is not None]
        assert keys == [BatchKey("1", False), BatchKey("2", False), BatchKey("1", True)]

    def test_nothing_is_kept_of_an_empty_key(self) -> None:
        batches = batcher(max_contacts=2)
        for version in range(50):
            batches.add(contact("a", version=str(version)), 0.0)
            batches.add(contact("b", version=str(version)), 0.0)
        while batches.take_any() is not None:
            pass
        assert not batches._by_key
        assert not batches._by_age
        assert not batches._full


class TestRepeats:
    def test_events_of_one_contact_stand_in_batches_of_their_own_in_order(self) -> None:
        batches = batcher()
        for offset, name in enumerate(["a", "a", "b", "a", "b"]):
            batches.add(contact(name, offset), 0.0)
        taken = [batches.take_any() for _ in range(3)]
        offsets = [[one.record.offset for one in batch.contacts] for batch in taken if batch is not None]
        assert offsets == [[0, 2], [1, 4], [3]]

    def test_a_repeat_goes_into_a_later_batch_that_is_open_already(self) -> None:
        batches = batcher()
        batches.add(contact("a", 0), 0.0)
        batches.add(contact("a", 1), 0.0)
        batches.add(contact("b", 2), 0.0)
        batches.add(contact("b", 3), 0.0)
        assert ids_of(batches.take_any()) == ["a", "b"]
        assert ids_of(batches.take_any()) == ["a", "b"]

    def test_a_repeat_never_joins_its_own_batch_though_an_earlier_one_lacks_it(self) -> None:
        batches = batcher(max_body_bytes=1_000)
        batches.add(sized("other", 300), 0.0)
        batches.add(sized("a", 750), 0.0)  # too large for the first, which stays open
        batches.add(sized("a", 100), 0.0)
        taken = [ids_of(batches.take_any()) for _ in range(3)]
        assert taken == [["other"], ["a"], ["a"]]

    def test_repeats_after_a_batch_was_closed_for_its_size(self) -> None:
        batches = batcher(max_body_bytes=1_000)
        batches.add(sized("a", 600), 0.0)
        batches.add(sized("c", 600), 0.0)  # closes the first
        batches.add(sized("a", 100), 0.0)
        batches.add(sized("a", 100), 0.0)
        assert [ids_of(batches.take_any()) for _ in range(3)] == [["a"], ["c", "a"], ["a"]]


class TestRemove:
    def test_only_the_unwanted_go(self) -> None:
        batches = batcher(max_contacts=3)
        for offset, name in enumerate("abcdefgh"):
            batches.add(contact(name, offset, partition=offset % 2), float(offset))
        removed = batches.remove(lambda one: one.record.partition == 1)
        assert [one.contact_id for one in removed] == ["b", "d", "f", "h"]
        assert batches.waiting == 4
        kept = []
        while (batch := batches.take_any()) is not None:
            kept += ids_of(batch)
        assert kept == ["a", "c", "e", "g"]
        assert batches.waiting == 0

    def test_what_stays_has_lingered_all_the_same(self) -> None:
        batches = batcher(linger_s=1.0)
        batches.add(contact("a"), 3.0)
        batches.remove(lambda _: False)
        assert batches.due_at() == 4.0

    def test_removing_everything_leaves_nothing(self) -> None:
        batches = batcher(max_contacts=2)
        for name in "abc":
            batches.add(contact(name), 0.0)
        batches.remove(lambda _: True)
        assert (batches.waiting, batches.has_full, batches.take_any(), batches.due_at()) == (0, False, None, None)


class TestPutBack:
    def test_what_was_taken_goes_before_what_came_later(self) -> None:
        batches = batcher(max_contacts=2)
        for offset, name in enumerate("abcdefg"):
            batches.add(contact(name, offset), 0.0)
        first, second = batches.take_full(), batches.take_full()
        assert first is not None
        assert second is not None
        batches.add(contact("h", 7), 1.0)
        # A request that failed first was not sent first.
        batches.put_back([second])
        batches.put_back([first])
        assert [ids_of(batches.take_full()) for _ in range(4)] == [["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"]]
        assert batches.waiting == 0

    def test_the_parts_of_a_batch_become_one_again(self) -> None:
        batches = batcher(max_contacts=3)
        for offset, name in enumerate("abcd"):
            batches.add(contact(name, offset), 0.0)
        batch = batches.take_full()
        assert batch is not None
        batches.put_back(replace(batch, contacts=(one,)) for one in batch.contacts)
        assert ids_of(batches.take_full()) == ["a", "b", "c"]

    def test_it_has_lingered_already(self) -> None:
        batches = batcher(linger_s=1.0)
        batches.add(contact("a"), 3.0)
        batch = batches.take_any()
        assert batch is not None
        batches.put_back([batch])
        assert batches.due_at() == 4.0


@given(
    sizes=st.lists(st.integers(31, 900), min_size=1, max_size=80),
    limit=st.integers(950, 3_000),
    version=st.sampled_from([None, "v1"]),
)
def test_no_two_neighbours_could_have_been_one_request(sizes: list[int], limit: int, version: str | None) -> None:
    """Bytes are used well: of distinct contacts, any two requests in a row hold more than half of a limit each, or
    more than one limit together."""
    batches = batcher(max_body_bytes=limit)
    for number, size in enumerate(sizes):
        batches.add(sized(str(number), size, version=version), 0.0)
    full = []
    while (batch := batches.take_full()) is not None:
        full.append(len(build_body([one.body for one in batch.contacts], version)))
    assert all(2 * size > limit - body_overhead(version) for size in full)


def lines_run(work: Callable[[], object]) -> int:
    """How many lines of the batcher's module run: its work without a clock."""
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != batcher_module.__file__:
            return None
        lines += event == "line"
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(previous)
    return lines


class CountedId(str):
    """A contact id that counts how often it is looked at."""

    __slots__ = ()
    looks = 0

    def __hash__(self) -> int:
        CountedId.looks += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        CountedId.looks += 1
        return super().__eq__(other)


def hot(number: int) -> Contact:
    return contact("one and the same", number)


def versions(number: int) -> Contact:
    return contact("a", number, version=str(number))


def two_of_each_behind_a_hot_one(number: int) -> Contact:
    return contact("hot" if number % 2 else str(number // 4), number)


def large(number: int) -> Contact:
    return sized(str(number), 40_000)


def few_ids(number: int) -> Contact:
    return contact(str(number % 40), number)


def test_open_batches_of_all_versions_count() -> None:
    batches = batcher(max_contacts=2)
    assert batches.open_batches == 0
    batches.add(contact("lone", version="2"), 0.0)
    for number in range(5):
        batches.add(contact("a", number), 1.0)
    assert batches.open_batches == 6
    batches.add(contact("b", 9), 1.0)
    assert batches.open_batches == 5, "it is full"
    assert [batches.open_batches for _ in range(5) if batches.take_due(9.0)] == [4, 3, 2, 1, 0]


class TestPartitions:
    def test_a_full_batch_is_of_one_partition(self) -> None:
        batches = batcher(max_contacts=2)
        for offset in range(8):
            batches.add(contact(f"c{offset}", offset, partition=offset % 3), 0.0)
        assert [ids_of(batches.take_full(0.0)) for _ in range(2)] == [["c0", "c3"], ["c1", "c4"]]
        assert ids_of(batches.take_full(0.0)) == ["c2", "c5"]
        assert batches.take_full(0.0) is None

    def test_a_batch_that_is_due_takes_those_of_other_partitions_up_to_its_limit(self) -> None:
        batches = batcher(max_contacts=6)
        for offset in range(10):
            batches.add(contact(f"c{offset}", offset, partition=offset % 3), float(offset) / 100)
        assert ids_of(batches.take_due(1.0)) == ["c0", "c3", "c6", "c9", "c1", "c4"]
        assert ids_of(batches.take_due(1.0)) == ["c7", "c2", "c5", "c8"]
        assert batches.take_due(1.0) is None

    def test_those_of_other_partitions_stay_where_they_do_not_fit(self) -> None:
        batches = batcher(max_body_bytes=1_000)
        batches.add(sized("a", 700, offset=0, partition=0), 0.0)
        batches.add(sized("b", 300, offset=1, partition=1), 0.0)
        batches.add(sized("a", 100, offset=2, partition=1), 0.0)
        batches.add(sized("c", 100, offset=3, partition=1), 0.0)
        assert ids_of(batches.take_due(1.0)) == ["a", "c"]
        assert ids_of(batches.take_due(1.0)) == ["b", "a"]

    def test_a_smaller_size_limits_what_goes_together(self) -> None:
        batches = batcher()
        for partition in range(3):
            batches.add(contact(f"c{partition}", 0, partition), 0.0)
        assert ids_of(batches.take_due(1.0, sizes={None: 2})) == ["c0", "c1"]

    def test_few_contacts_have_their_turn_after_five_lingers_of_a_backlog(self) -> None:
        batches = batcher(max_contacts=3, linger_s=0.2)
        batches.add(contact("few", 0, partition=0), 0.0)
        for offset in range(8):
            batches.add(contact(f"c{offset}", offset, partition=1), 0.1)
        assert ids_of(batches.take_full(0.99)) == ["c0", "c1", "c2"]
        assert ids_of(batches.take_full(1.01)) == ["few", "c6", "c7"]
        assert ids_of(batches.take_full(1.01)) == ["c3", "c4", "c5"]

    def test_what_is_full_only_together_waits_for_five_lingers(self) -> None:
        batches = batcher(max_contacts=3, linger_s=0.2)
        for partition in range(4):
            batches.add(contact(f"c{partition}", 0, partition), 0.0)
        assert batches.take_full(0.99) is None
        assert ids_of(batches.take_full(1.01)) == ["c0", "c1", "c2"]
        assert batches.take_full(9.0) is None, "what is left is not full"

    def test_what_is_full_only_together_by_its_bytes_too(self) -> None:
        batches = batcher(max_body_bytes=1_000, linger_s=0.2)
        for partition in range(4):
            batches.add(sized(f"c{partition}", 450, offset=0, partition=partition), 0.0)
        assert ids_of(batches.take_full(1.01)) == ["c0", "c1"]
        assert batches.take_full(0.99) is None


class TestApart:
    def test_a_partition_kept_apart_is_put_together_with_no_other(self) -> None:
        batches = batcher()
        for offset, partition in enumerate([1, 0, 1, 2, 1, 0]):
            batches.add(contact(f"c{offset}", offset, partition), 0.0)
        batches.apart = {Partition(TOPIC, 1), Partition(TOPIC, 2)}
        taken = [batches.take_any() for _ in range(3)]
        assert [(ids_of(batch), batch and batch.apart) for batch in taken] == [
            (["c0", "c2", "c4"], True),
            (["c1", "c5"], False),
            (["c3"], True),
        ]

    @pytest.mark.parametrize("full", [True, False])
    def test_only_those_or_only_the_others_can_be_taken(self, *, full: bool) -> None:
        batches = batcher(max_contacts=1 if full else 9)
        batches.apart = {Partition(TOPIC, 1)}
        batches.add(contact("other", 0, partition=0), 0.0)
        batches.add(contact("apart", 1, partition=1), 0.0)

        def take(*, apart: bool) -> Batch | None:
            return batches.take_full(apart=apart) if full else batches.take_due(9.0, apart=apart)

        assert ids_of(take(apart=True)) == ["apart"]
        assert take(apart=True) is None
        assert ids_of(take(apart=False)) == ["other"]


class TestSelection:
    @pytest.mark.parametrize("full", [True, False])
    def test_batches_of_a_version_that_is_not_allowed_are_passed_over(self, *, full: bool) -> None:
        batches = batcher(max_contacts=1 if full else 9)
        for offset, version in enumerate(["1", "2", "1"]):
            batches.add(contact(f"c{offset}", offset, version=version), float(offset))

        def is_two(key: BatchKey) -> bool:
            return key.model_version == "2"

        def is_three(key: BatchKey) -> bool:
            return key.model_version == "3"

        assert not batches.is_due(9.0, is_three)
        assert batches.is_due(9.0, is_two)
        assert ids_of(batches.take_full(9.0, is_two) if full else batches.take_due(9.0, is_two)) == ["c1"]
        assert not batches.is_due(9.0, is_two)
        assert batches.is_due(9.0, lambda _: True)

    def test_a_version_with_a_smaller_size_has_full_batches_with_fewer(self) -> None:
        batches = batcher(max_contacts=10, linger_s=60.0)
        for offset in range(3):
            batches.add(contact(f"a{offset}", offset, version="1"), 0.0)
            batches.add(contact(f"b{offset}", offset, version="2"), 0.0)
        assert batches.take_full(sizes={"1": 4}) is None
        assert ids_of(batches.take_full(sizes={"1": 3})) == ["a0", "a1", "a2"]
        assert batches.take_full(sizes={"1": 3}) is None

    def test_one_wanted_contact_of_a_version_is_taken_out(self) -> None:
        batches = batcher(max_contacts=2)
        for offset, (name, version) in enumerate([("a", "1"), ("b", "1"), ("c", "2"), ("d", "1")]):
            batches.add(contact(name, offset, version=version), float(offset))
        taken = [batches.take_contact("1", lambda one: one.contact_id != "a") for _ in range(3)]
        assert [batch and ids_of(batch) for batch in taken] == [["b"], ["d"], None]
        assert [one.contact_id for one in batches] == ["a", "c"]
        assert batches.keys == {BatchKey("1", False), BatchKey("2", False)}
        assert batches.waiting == 2


@pytest.mark.parametrize("make", [hot, versions, two_of_each_behind_a_hot_one, large, few_ids])
def test_work_grows_with_the_contacts_and_not_with_their_square(make: Callable[[int], Contact]) -> None:
    amount = 4_000
    contacts = [make(number)._replace(contact_id=CountedId(make(number).contact_id)) for number in range(amount)]
    CountedId.looks = 0
    taken = 0

    def work() -> None:
        nonlocal taken
        batches = batcher()
        for one in contacts:
            batches.add(one, 0.0)
        batches.remove(lambda _: False)
        while (batch := batches.take_any()) is not None:
            taken += len(batch.contacts)

    # Python 3.12 counts 120 lines a contact, the others fewer.
    assert lines_run(work) < 130 * amount
    assert taken == amount
    assert CountedId.looks < 60 * amount
