"""Records of retry topics: their group, and their due time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.core.records import SourceRecord
from stream_scorer.core.retry_topics import NotDue, RetryDelays, RetryState, StartBounds, state_headers
from stream_scorer.core.scoring.types import Deferred, Skipped
from stream_scorer.scoring.retry_intake import RetryIntake

if TYPE_CHECKING:
    from stream_scorer.core.records import Headers

NOW_MS = 1_700_000_000_000
STATE = RetryState("in/3/17", 1, NOW_MS, "us", "")
BOUNDS = StartBounds(frozenset({("retry-2", 0)}), {("in", 3): 18})


def record(headers: Headers, *, partition: int = 1, written_s: float = 0.0) -> SourceRecord:
    return SourceRecord("retry-2", partition, 5, b"k", b"v", headers, True, NOW_MS - round(written_s * 1000))


def deferred(partition: int = 1, written_s: float = 0.0, **changes: object) -> SourceRecord:
    return record(state_headers(STATE._replace(**changes)), partition=partition, written_s=written_s)


def intake(bounds: StartBounds | None = None) -> RetryIntake:
    levels = {"retry-1": 1, "retry-2": 2, "retry-3": 3}
    return RetryIntake(levels, "us", RetryDelays((60.0, 600.0)), bounds or StartBounds())


def test_a_due_record_is_returned_with_its_place_on_the_features_topic() -> None:
    given = deferred()
    assert intake().examine(given, NOW_MS) == given._replace(origin="in/3/17")


def test_a_record_that_is_not_due_holds_its_partition() -> None:
    assert intake().examine(deferred(not_before_ms=NOW_MS + 500), NOW_MS) == NotDue(NOW_MS + 500)


def test_a_record_that_is_due_much_later_is_written_again_with_the_same_state() -> None:
    given = deferred(written_s=600, not_before_ms=NOW_MS + 61_000, rounds=2, held="no_result/200/v1")
    found = intake().examine(given, NOW_MS)
    origin = given._replace(origin="in/3/17")
    assert found == Deferred(origin, "", 2, 1, NOW_MS + 61_000, "no_result/200/v1")


def test_records_of_other_groups_are_skipped_whether_they_are_due_or_not() -> None:
    for not_before_ms in (0, NOW_MS + 60_000):
        given = deferred(group="them", not_before_ms=not_before_ms)
        assert intake().examine(given, NOW_MS) == Skipped(given)


def test_a_record_without_a_group_is_an_event_of_its_own() -> None:
    given = record([("h", b"1")])
    assert intake().examine(given, NOW_MS) == given._replace(origin="retry-2/1/5")


def test_a_topic_that_is_no_longer_configured_is_read_too() -> None:
    given = deferred()._replace(topic="retry-3")
    assert intake().examine(given, NOW_MS) == given._replace(origin="in/3/17")
    assert "retry-3" in intake()
    assert "in" not in intake()


class TestStartBounds:
    """`--from` bounds the contacts that are read from partitions where the group had no commit."""

    def test_a_contact_from_before_the_start_is_skipped(self) -> None:
        given = deferred(partition=0)
        assert intake(BOUNDS).examine(given, NOW_MS) == Skipped(given)

    def test_a_contact_after_the_start_is_read(self) -> None:
        given = deferred(partition=0, source="in/3/18")
        assert intake(BOUNDS).examine(given, NOW_MS) == given._replace(origin="in/3/18")
        other = deferred(partition=0, source="in/2/0")
        assert intake(BOUNDS).examine(other, NOW_MS) == other._replace(origin="in/2/0")

    def test_where_the_group_has_a_commit_the_commit_is_the_bound(self) -> None:
        """An offset that an operator moves forward on the features topic skips no pending contact."""
        given = deferred(partition=1)
        assert intake(BOUNDS).examine(given, NOW_MS) == given._replace(origin="in/3/17")

    def test_a_record_of_another_program_is_not_bounded(self) -> None:
        given = record([], partition=0)
        assert intake(BOUNDS).examine(given, NOW_MS) == given._replace(origin="retry-2/0/5")


def test_a_contact_of_a_former_features_topic_is_named_by_its_own_place() -> None:
    """Its former location is that of another record now; the contact is neither lost nor confused with that record."""
    accepted = StartBounds(frozenset({("retry-2", 1)}), {("in", 3): 100}, {("in", 3): NOW_MS - 60_000})
    former = deferred(written_s=61)
    assert intake(accepted).examine(former, NOW_MS) == former._replace(origin="retry-2/1/5")
    again = deferred(written_s=61, source="retry-2/1/5")
    assert intake(accepted).examine(again, NOW_MS) == again._replace(origin="retry-2/1/5")
    present = deferred(written_s=60, source="in/3/117")
    assert intake(accepted).examine(present, NOW_MS) == present._replace(origin="in/3/117")
