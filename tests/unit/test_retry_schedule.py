"""The schedule of retry topics, and their headers, which may be invalid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_scorer.core.records import SourceRecord
from stream_scorer.core.retry_topics import (
    NotDue,
    RetryDelays,
    RetryState,
    Source,
    TooEarly,
    level_of,
    parse_source,
    retry_topics,
    state_headers,
    state_of,
)

if TYPE_CHECKING:
    from stream_scorer.core.records import Headers

DELAYS = RetryDelays((60.0, 600.0, 3600.0))
NOW_MS = 1_700_000_000_000
STATE = RetryState("contact-features/3/17", 2, NOW_MS, "scorer", "refused_by_api/400/v1")


def record(headers: Headers, topic: str = "retry-2") -> SourceRecord:
    return SourceRecord(topic, 1, 5, b"key", b"value", headers)


def step(level: int, due_in_s: float, *, written_s: float = 0.0, delays: RetryDelays = DELAYS) -> object:
    """Return the decision for a head that was written so many seconds ago and is due in so many."""
    return delays.next_step(
        level, NOW_MS + round(due_in_s * 1000), written_ms=NOW_MS - round(written_s * 1000), now_ms=NOW_MS
    )


def test_the_topics_are_numbered_from_one_and_their_names_give_the_level() -> None:
    names = retry_topics("in-9-retry", 3)
    assert names == ("in-9-retry-1", "in-9-retry-2", "in-9-retry-3")
    assert [level_of(name) for name in names] == [1, 2, 3]


class TestSchedule:
    def test_a_head_is_due_at_its_time(self) -> None:
        assert step(1, 0) is None
        assert step(1, 0.001) == NotDue(NOW_MS + 1)

    def test_a_head_holds_its_partition_for_the_delay_of_its_topic_at_most(self) -> None:
        assert step(1, 1000, written_s=10) == NotDue(NOW_MS + 50_000)

    @pytest.mark.parametrize(("left_s", "level"), [(30, 1), (60, 1), (599, 1), (600, 2), (3600, 3), (80_000, 3)])
    def test_a_head_due_later_moves_to_the_longest_topic_within_its_wait(self, left_s: float, level: int) -> None:
        assert step(1, left_s, written_s=60) == TooEarly(level)

    def test_a_head_of_a_removed_level_waits_for_the_delay_of_the_last_one(self) -> None:
        delays = RetryDelays((60.0,))
        assert step(3, 1000, written_s=59, delays=delays) == NotDue(NOW_MS + 1000)
        assert step(3, 1000, written_s=60, delays=delays) is None

    def test_an_impossible_time_is_attributed_to_a_wrong_clock(self) -> None:
        assert step(1, 86_400 + 3600, written_s=60) == TooEarly(3)
        assert step(1, 86_400 + 3601, written_s=60) is None

    @pytest.mark.parametrize("written_s", [-100.0, (NOW_MS + 1) / 1000])
    def test_a_record_from_the_future_or_without_a_time_is_written_again(self, written_s: float) -> None:
        assert step(1, 30, written_s=written_s) == TooEarly(1)

    def test_the_time_of_a_broker_whose_clock_is_ahead_does_not_write_a_record_again_and_again(self) -> None:
        assert step(1, 1000, written_s=-0.1) == NotDue(NOW_MS + 60_000)
        assert step(1, 30, written_s=-60) == NotDue(NOW_MS + 30_000)

    @given(
        delays=st.lists(st.floats(0.1, 1e6), min_size=1, max_size=9),
        level=st.integers(1, 9),
        due_in_s=st.floats(-1e6, 1e6),
        written_s=st.floats(-10, 1e6),
    )
    def test_no_head_holds_its_partition_longer_than_its_delay(
        self, delays: list[float], level: int, due_in_s: float, written_s: float
    ) -> None:
        rules = RetryDelays(tuple(sorted(delays)))
        found = step(level, due_in_s, written_s=written_s, delays=rules)
        if isinstance(found, NotDue):
            assert NOW_MS < found.until_ms <= NOW_MS + round(rules.delay_s(level) * 1000)
        elif isinstance(found, TooEarly):
            assert 1 <= found.level <= rules.levels


class TestHeaders:
    @pytest.mark.parametrize("state", [STATE, STATE._replace(held="")])
    def test_the_headers_round_trip(self, state: RetryState) -> None:
        assert state_of(record([("h", b"1"), *state_headers(state)])) == state

    def test_an_empty_list_has_no_header(self) -> None:
        assert "stream-scorer-held" not in dict(state_headers(STATE._replace(held="")))

    def test_a_record_of_another_program_is_an_event_of_its_own(self) -> None:
        assert state_of(record([])) == RetryState("retry-2/1/5", 2, 0, None, "")
        without_group = [header for header in state_headers(STATE) if header[0] != "stream-scorer-group"]
        assert state_of(record(without_group)) == RetryState("retry-2/1/5", 2, NOW_MS, None, "")

    @pytest.mark.parametrize(
        "source", [b"", b"contact-features/3", b"/3/17", b"a/b/3/17", b"a/3/17 ", b"a/-3/17", None]
    )
    def test_an_unreadable_source_is_replaced_by_the_location_of_the_record(self, source: bytes | None) -> None:
        headers: Headers = [("stream-scorer-source", source), *state_headers(STATE)[1:]]
        assert state_of(record(headers)) == STATE._replace(source="retry-2/1/5")

    @pytest.mark.parametrize("number", [b"", b"x", b"-1", b"1.5", "²".encode(), b"1" * 40, None])
    def test_unreadable_numbers_are_those_of_the_topic(self, number: bytes | None) -> None:
        given_headers = state_headers(STATE)
        headers = [given_headers[0], ("stream-scorer-deferred", number), ("stream-scorer-not-before", number)]
        found = state_of(record([*headers, *given_headers[3:]]))
        assert found == STATE._replace(rounds=2, not_before_ms=0)

    def test_the_first_of_several_counts(self) -> None:
        assert state_of(record([*state_headers(STATE), ("stream-scorer-group", b"other")])).group == "scorer"

    @given(st.lists(st.tuples(st.sampled_from([name for name, _ in state_headers(STATE)]), st.binary(max_size=40))))
    def test_any_headers_are_read(self, headers: list[tuple[str, bytes]]) -> None:
        found = state_of(record(list(headers)))
        assert parse_source(found.source) is not None
        assert found.rounds >= 0
        assert found.not_before_ms >= 0

    def test_a_source_is_parsed(self) -> None:
        assert parse_source("a.b/3/17") == Source("a.b", 3, 17)
        assert parse_source("a.b/3") is None


def test_a_deferred_record_keeps_its_location_on_the_features_topic() -> None:
    fresh = record([])
    assert fresh.source == "retry-2/1/5"
    assert fresh._replace(origin="contact-features/3/17").source == "contact-features/3/17"
