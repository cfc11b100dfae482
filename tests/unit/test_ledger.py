from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support_core import TOPIC, facts, record, rejected, scored

from stream_scorer.core.exactly_once.outcome_cache import OutcomeCache
from stream_scorer.core.records import Partition, SourceRecord, size_of
from stream_scorer.scoring.ports import OutcomeLedger

if TYPE_CHECKING:
    from stream_scorer.core.exactly_once.offset_ledger import CommittableBatch
    from stream_scorer.core.records import Headers

P0, P1 = Partition("contact-features", 0), Partition("contact-features", 1)


def owning(*partitions: Partition, next_offset: int = 0, **limits: int) -> OutcomeLedger:
    ledger = OutcomeLedger(**limits)
    for partition in partitions or (P0,):
        ledger.assign(partition, start_offset=0, next_offset=next_offset)
    return ledger


def offsets(head: CommittableBatch) -> list[int]:
    return [outcome.record.offset for outcome in head.outcomes]


class TestHeads:
    def test_nothing_read_nothing_to_publish(self) -> None:
        ledger = owning()
        assert not ledger.has_committable()
        assert ledger.committable(10) == []

    def test_a_finished_record_waits_behind_an_unfinished_one(self) -> None:
        ledger = owning()
        records = [record(offset) for offset in range(3)]
        assert [ledger.read(one) for one in records] == [True, True, True]
        ledger.finish(scored(records[1]))
        assert not ledger.has_committable()
        ledger.finish(scored(records[0]))
        (head,) = ledger.committable(10)
        assert (offsets(head), head.next_offset) == ([0, 1], 2)

    def test_next_offset_follows_the_last_finished_record_over_gaps(self) -> None:
        ledger = owning()
        for offset in (3, 7, 20):
            ledger.read(record(offset))
        ledger.finish(scored(record(3)))
        ledger.finish(scored(record(7)))
        (head,) = ledger.committable(10)
        assert (offsets(head), head.next_offset) == ([3, 7], 8)

    def test_the_limit_counts_over_all_partitions(self) -> None:
        ledger = owning(P0, P1)
        for partition in (0, 1):
            for offset in range(3):
                ledger.read(record(offset, partition))
                ledger.finish(scored(record(offset, partition)))
        first, second = ledger.committable(4)
        assert (offsets(first), offsets(second)) == ([0, 1, 2], [0])
        assert ledger.committable(3) == [first]

    def test_heads_take_nothing_out(self) -> None:
        ledger = owning()
        ledger.read(record(0))
        ledger.finish(scored(record(0)))
        assert ledger.committable(5) == ledger.committable(5)
        assert ledger.uncommitted == 1

    def test_a_head_repeats_the_start_of_the_group(self) -> None:
        ledger = OutcomeLedger()
        ledger.assign(P0, start_offset=17, next_offset=40)
        ledger.read(record(40))
        ledger.finish(scored(record(40)))
        assert ledger.committable(1)[0].start_offset == 17

    def test_confirm_takes_exactly_the_head_out(self) -> None:
        ledger = owning()
        for offset in range(3):
            ledger.read(record(offset, value=b"12345"))
        ledger.finish(scored(record(0, value=b"12345")))
        batches = ledger.committable(9)
        ledger.finish(scored(record(1, value=b"12345")))
        ledger.mark_committed(batches)
        assert (ledger.uncommitted, ledger.uncommitted_bytes) == (2, 2 * len(b"key12345"))
        assert offsets(ledger.committable(9)[0]) == [1]

    def test_replace_changes_a_finished_outcome_only(self) -> None:
        ledger = owning()
        ledger.read(record(0))
        ledger.replace(rejected(record(0)))
        assert not ledger.has_committable()
        ledger.finish(scored(record(0)))
        ledger.replace(rejected(record(0), facts()))
        assert ledger.committable(1)[0].outcomes == [rejected(record(0), facts())]

    def test_the_first_outcome_stays(self) -> None:
        ledger = owning()
        ledger.read(record(0))
        ledger.finish(scored(record(0), "first"))
        ledger.finish(scored(record(0), "second"))
        assert ledger.committable(1)[0].outcomes == [scored(record(0), "first")]


class TestOwnership:
    def test_what_is_not_owned_is_not_entered(self) -> None:
        ledger = owning(P0)
        assert not ledger.read(record(0, partition=1))
        assert ledger.uncommitted == 0

    def test_a_record_is_entered_once(self) -> None:
        ledger = owning(next_offset=5)
        assert not ledger.read(record(4))
        assert ledger.read(record(5))
        assert not ledger.read(record(5))
        assert ledger.uncommitted == 1

    def test_a_head_dies_with_its_assignment(self) -> None:
        ledger = owning()
        ledger.read(record(0))
        ledger.finish(scored(record(0)))
        (head,) = ledger.committable(1)
        assert ledger.is_assigned(head)
        ledger.revoke(P0)
        assert not ledger.is_assigned(head)
        ledger.assign(P0, start_offset=0, next_offset=0)
        assert not ledger.is_assigned(head)

    def test_disowning_what_was_never_owned_is_no_error(self) -> None:
        ledger = OutcomeLedger()
        ledger.revoke(P0, [record(0)])
        assert (ledger.partitions, ledger.uncommitted) == ([], 0)

    def test_disown_takes_its_rows_out_of_the_sums(self) -> None:
        ledger = owning(P0, P1)
        ledger.read(record(0, 0, b"123"))
        ledger.read(record(0, 1, None))
        ledger.revoke(P0)
        assert (ledger.uncommitted, ledger.uncommitted_bytes, ledger.partitions) == (1, len(b"key"), [P1])

    def test_keys_values_and_headers_count_as_bytes(self) -> None:
        headers: Headers = [("name", b"12345"), ("empty", None), ("größe", b"")]
        large = SourceRecord(TOPIC, 0, 0, b"key", b"1234567890", headers)
        assert size_of(large) == 3 + 10 + (4 + 5) + 5 + len("größe".encode()) + 3 * 146
        ledger = owning()
        ledger.read(large)
        ledger.read(SourceRecord(TOPIC, 0, 1, None, None, [("x", bytes(900_000))]))
        assert ledger.size(P0) == (2, size_of(large) + 900_147)
        assert ledger.uncommitted_bytes == size_of(large) + 900_147
        ledger.resolve({P0: 1})
        assert ledger.size(P0) == (1, 900_147)
        ledger.revoke(P0)
        assert ledger.uncommitted_bytes == 0

    def test_owning_twice_starts_over(self) -> None:
        ledger = owning()
        ledger.read(record(0))
        ledger.assign(P0, start_offset=0, next_offset=0)
        assert ledger.uncommitted == 0
        assert ledger.read(record(0))

    def test_has_pending(self) -> None:
        ledger = owning(P0, P1)
        ledger.read(record(0, 0))
        assert ledger.has_pending([P0])
        assert not ledger.has_pending([P1])
        ledger.finish(scored(record(0, 0)))
        assert not ledger.has_pending([P0, P1])


class TestAnswersThatOutliveOwnership:
    def test_a_finished_outcome_is_used_when_its_record_is_read_again(self) -> None:
        ledger = owning()
        ledger.read(record(0))
        ledger.finish(scored(record(0), "paid"))
        ledger.revoke(P0)
        ledger.assign(P0, start_offset=0, next_offset=0)
        assert not ledger.read(record(0))
        assert ledger.committable(1)[0].outcomes == [scored(record(0), "paid")]

    def test_an_answer_after_the_partition_went_is_used_too(self) -> None:
        ledger = owning()
        ledger.read(record(0))
        ledger.revoke(P0, [record(0)])
        ledger.finish(scored(record(0), "paid"))
        ledger.assign(P0, start_offset=0, next_offset=0)
        assert not ledger.read(record(0))
        assert ledger.committable(1)[0].outcomes == [scored(record(0), "paid")]

    def test_a_record_read_again_waits_for_the_answer_under_way(self) -> None:
        ledger = owning()
        ledger.read(record(0))
        ledger.revoke(P0, [record(0)])
        ledger.assign(P0, start_offset=0, next_offset=0)
        assert not ledger.read(record(0))
        assert ledger.is_pending(record(0))
        ledger.finish(scored(record(0), "paid"))
        assert ledger.committable(1)[0].outcomes == [scored(record(0), "paid")]

    def test_the_answer_under_way_survives_two_losses(self) -> None:
        ledger = owning()
        ledger.read(record(0))
        for _ in range(2):
            ledger.revoke(P0, [record(0)])
            ledger.assign(P0, start_offset=0, next_offset=0)
        assert not ledger.read(record(0))

    def test_a_record_without_a_request_in_flight_is_sent_again(self) -> None:
        ledger = owning()
        ledger.read(record(0))
        ledger.revoke(P0, [record(0)])
        ledger.drop(record(0))
        ledger.assign(P0, start_offset=0, next_offset=0)
        assert ledger.read(record(0))

    def test_a_record_that_was_not_sent_is_sent_when_read_again(self) -> None:
        ledger = owning()
        ledger.read(record(0))
        ledger.revoke(P0, [])
        ledger.finish(scored(record(0), "from nowhere"))
        ledger.assign(P0, start_offset=0, next_offset=0)
        assert ledger.read(record(0))

    def test_what_cost_nothing_is_not_remembered(self) -> None:
        ledger = owning()
        ledger.read(record(0))
        ledger.finish(rejected(record(0), request=None))
        ledger.revoke(P0)
        ledger.assign(P0, start_offset=0, next_offset=0)
        assert ledger.read(record(0))

    def test_the_oldest_is_forgotten_first(self) -> None:
        ledger = owning(remembered_limit=2)
        for offset in range(3):
            ledger.read(record(offset))
            ledger.finish(scored(record(offset)))
        ledger.revoke(P0)
        ledger.assign(P0, start_offset=0, next_offset=0)
        assert [ledger.read(record(offset)) for offset in range(3)] == [True, False, False]

    def test_large_records_are_bounded_by_their_bytes(self) -> None:
        ledger = owning(remembered_bytes_limit=30)
        for offset in range(3):
            ledger.read(record(offset, value=b"0123456789"))
            ledger.finish(scored(record(offset, value=b"0123456789")))
        ledger.revoke(P0)
        ledger.assign(P0, start_offset=0, next_offset=0)
        assert [ledger.read(record(offset, value=b"0123456789")) for offset in range(3)] == [True, False, False]

    def test_one_record_over_the_limit_is_not_remembered(self) -> None:
        ledger = owning(remembered_bytes_limit=5)
        ledger.read(record(0, value=b"0123456789"))
        ledger.finish(scored(record(0, value=b"0123456789")))
        ledger.revoke(P0)
        ledger.assign(P0, start_offset=0, next_offset=0)
        assert ledger.read(record(0, value=b"0123456789"))

    def test_what_is_kept_twice_counts_once(self) -> None:
        remembered = OutcomeCache(limit=9, bytes_limit=10)
        for batch_id in ("first", "second"):
            remembered.put(scored(record(0, value=b"123456"), batch_id))
        assert remembered.pop(record(0, value=b"123456")) == scored(record(0, value=b"123456"), "second")
        assert len(remembered) == 0

    @pytest.mark.parametrize("finished_before", [True, False])
    def test_a_recreated_topic_gets_no_outcome_of_its_predecessor(self, *, finished_before: bool) -> None:
        old, new = record(0, value=b"old"), record(0, value=b"new")
        ledger = owning()
        ledger.read(old)
        if finished_before:
            ledger.finish(scored(old))
        ledger.revoke(P0, [old])
        ledger.assign(P0, start_offset=0, next_offset=0)
        assert ledger.read(new)
        assert not ledger.is_pending(old)
        ledger.finish(scored(old, "an answer about the old record, come late"))
        assert not ledger.has_committable()
        ledger.finish(scored(new, "its own"))
        assert ledger.committable(1)[0].outcomes == [scored(new, "its own")]


class TestSettle:
    def test_committed_heads_go_and_the_others_stay(self) -> None:
        ledger = owning(P0, P1)
        for partition in (0, 1):
            ledger.read(record(0, partition))
            ledger.finish(scored(record(0, partition)))
        ledger.resolve({P0: 1, P1: 0})
        assert [head.partition for head in ledger.committable(9)] == [P1]
        assert ledger.uncommitted == 1

    def test_an_answer_about_what_another_worker_published_is_dropped(self) -> None:
        ledger = owning()
        ledger.read(record(0))
        ledger.resolve({P0: 1})
        assert not ledger.is_pending(record(0))
        ledger.finish(scored(record(0)))
        assert not ledger.has_committable()
        assert (ledger.uncommitted, ledger.uncommitted_bytes) == (0, 0)

    def test_what_another_worker_published_is_not_read_any_more(self) -> None:
        ledger = owning()
        ledger.read(record(0))
        ledger.resolve({P0: 5})
        assert [ledger.read(record(offset)) for offset in (3, 4, 5)] == [False, False, True]

    def test_a_partition_without_commit_stays_as_it_is(self) -> None:
        ledger = owning()
        ledger.read(record(0))
        ledger.resolve({})
        ledger.resolve({P1: 3})
        assert ledger.is_pending(record(0))
