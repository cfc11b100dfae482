"""Committed offset at the end of a log, after transaction markers and aborted records."""

from __future__ import annotations

from types import SimpleNamespace

from stream_scorer.core.records import Partition
from stream_scorer.kafka.consumer.end_of_partition import EndOfPartitionTracker

P = Partition("in", 0)


def tracker(*read: int, eof: int | None = None) -> EndOfPartitionTracker:
    """A partition that is read from 10 on."""
    made = EndOfPartitionTracker()
    made.seek(P, 10)
    for offset in read:
        made.delivered("in", 0, offset + 1)
    if eof is not None:
        made.eof_at(SimpleNamespace(topic=lambda: "in", partition=lambda: 0, offset=lambda: eof))
    return made


def test_behind_the_last_record_the_markers_are_committed_as_well() -> None:
    assert tracker(10, 11, eof=14).commit_offset(P, 12) == 14


def test_before_the_end_is_known_the_commit_ends_with_the_record() -> None:
    assert tracker(10, 11).commit_offset(P, 12) == 12


def test_a_record_that_was_delivered_and_is_not_finished_is_not_passed_over() -> None:
    assert tracker(10, 11, 12, eof=14).commit_offset(P, 12) == 12


def test_the_end_of_an_earlier_moment_does_not_count() -> None:
    both = tracker(10, eof=12)
    both.delivered("in", 0, 13)
    assert both.commit_offset(P, 13) == 13


def test_after_a_seek_the_end_is_not_known() -> None:
    again = tracker(10, 11, eof=14)
    again.seek(P, 11)
    assert again.commit_offset(P, 11) == 11


def test_a_partition_without_records() -> None:
    assert tracker(eof=12).commit_offset(P, 10) == 12
    assert EndOfPartitionTracker().commit_offset(P, 10) == 10
