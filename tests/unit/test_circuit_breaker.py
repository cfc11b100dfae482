"""Circuit breaker: its states, and the changes that it reports."""

from __future__ import annotations

import pytest

from stream_scorer.scoring.circuit_breaker import BreakerState, CircuitBreaker, OpenReason

DOWN = "HTTP 503 service.unavailable: try again"


class Recorder:
    """Records the changes and probes that a `CircuitBreaker` reports."""

    def __init__(self) -> None:
        self.changes: list[tuple[BreakerState | None, BreakerState | None]] = []
        self.probes: list[str] = []
        self.breaker = CircuitBreaker(
            10.0, on_change=lambda before, now: self.changes.append((before, now)), on_probe=self.probes.append
        )

    @property
    def states(self) -> list[tuple[OpenReason, str] | None]:
        return [None if state is None else (state.reason, state.message) for _, state in self.changes]


def opened(next_probe_at: float, probes: int = 0) -> BreakerState:
    return BreakerState(OpenReason.API, DOWN, 100.0, next_probe_at, probes)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_an_open_state_has_its_start_message_and_next_probe(recorder: Recorder) -> None:
    assert recorder.breaker.trip(DOWN, 100.0)
    assert recorder.breaker.open_state == opened(110.0)
    assert recorder.breaker.reported == recorder.breaker.open_state
    assert recorder.changes == [(None, recorder.breaker.open_state)]


def test_a_retry_after_defers_the_first_probe_and_a_later_one_defers_it_again(recorder: Recorder) -> None:
    recorder.breaker.trip(DOWN, 100.0, until=140.0)
    recorder.breaker.defer_probe(130.0)
    assert recorder.breaker.reported == opened(140.0)
    recorder.breaker.defer_probe(150.0)
    assert not recorder.breaker.trip("another", 120.0, until=160.0)
    assert recorder.breaker.reported == opened(160.0)
    assert len(recorder.changes) == 1, "the next probe time is not a reported change"


def test_probes_with_the_same_failure_are_counted_and_not_reported(recorder: Recorder) -> None:
    recorder.breaker.trip(DOWN, 100.0)
    for number in range(1, 6):
        recorder.breaker.probe_failed(DOWN, 100.0 + 10.0 * number)
    assert recorder.breaker.reported == opened(160.0, probes=5)
    assert len(recorder.changes) == 1
    assert recorder.probes == ["failed"] * 5


@pytest.mark.parametrize(
    ("first", "later", "changes"),
    [
        (DOWN, "no connection to api: refused", True),
        (DOWN, DOWN.replace("503", "500"), True),
        ("HTTP 500 x: id 6f1e2b3c-1111-4222-8333-944455556666", "HTTP 500 x: id 00aa2b3c-1111-4222-8333-9", False),
        ("HTTP 500 at 1700000000123", "HTTP 500 at 1700000010456", False),
        ("the API answered 3 of 12 contacts", "the API answered 0 of 12 contacts", True),
        ("HTTP 500 deadbeef effaced", "HTTP 500 deadbeef defaced", True),
    ],
)
def test_another_message_is_a_change_and_another_id_is_none(
    recorder: Recorder, first: str, later: str, *, changes: bool
) -> None:
    recorder.breaker.trip(first, 100.0)
    recorder.breaker.probe_failed(later, 110.0)
    assert len(recorder.changes) == 1 + changes
    reported = recorder.breaker.reported
    assert reported is not None
    assert (reported.message, reported.since) == (later, 100.0), "the latest message is reported"


def test_reset_reports_the_latest_state(recorder: Recorder) -> None:
    recorder.breaker.trip(DOWN, 100.0)
    recorder.breaker.probe_failed(DOWN, 110.0)
    recorder.breaker.reset()
    assert recorder.changes[-1] == (opened(120.0, probes=1), None)
    assert recorder.probes == ["failed", "recovered"]
    assert recorder.breaker.open_state is recorder.breaker.reported is None
    recorder.breaker.reset()
    assert len(recorder.changes) == 2


def test_a_closed_breaker_ignores_probe_events(recorder: Recorder) -> None:
    recorder.breaker.defer_probe(500.0)
    recorder.breaker.probe_failed(DOWN, 100.0)
    recorder.breaker.reset()
    assert (recorder.changes, recorder.probes, recorder.breaker.reported) == ([], [], None)


def test_a_state_covers_the_failures_that_its_message_contains(recorder: Recorder) -> None:
    recorder.breaker.trip(DOWN, 100.0)
    state = recorder.breaker.open_state
    assert state is not None
    assert state.covers("HTTP 503 service.unavailable")
    assert not state.covers("HTTP 500")


def test_a_throttle_is_reported_after_five_seconds(recorder: Recorder) -> None:
    for tenth in range(49):
        recorder.breaker.throttle(OpenReason.QUOTA, "quota: own_quota", 100.0 + tenth / 10, 140.0)
    assert recorder.changes == []
    assert recorder.breaker.reported is None
    recorder.breaker.throttle(OpenReason.QUOTA, "quota: own_quota", 105.0, 140.0)
    recorder.breaker.throttle(OpenReason.QUOTA, "quota: own_quota", 105.1, 141.0)
    assert recorder.states == [(OpenReason.QUOTA, "quota: own_quota")]
    assert recorder.breaker.reported == BreakerState(OpenReason.QUOTA, "quota: own_quota", 100.0, 141.0)
    assert recorder.breaker.open_state is None, "no probe ends it"
    recorder.breaker.clear_throttle()
    assert recorder.states[1:] == [None]


def test_short_throttles_are_not_reported(recorder: Recorder) -> None:
    for second in range(60):
        recorder.breaker.throttle(OpenReason.QUOTA, "quota: own_quota", 100.0 + second, 101.0 + second)
        recorder.breaker.clear_throttle()
    assert recorder.changes == []


def test_a_throttle_for_another_reason_restarts(recorder: Recorder) -> None:
    recorder.breaker.throttle(OpenReason.QUOTA, "quota: retry_after", 100.0, 110.0)
    recorder.breaker.throttle(OpenReason.QUOTA, "quota: retry_after", 106.0, 110.0)
    recorder.breaker.throttle(OpenReason.SPEND_LIMIT, "spend_limit", 110.0, 150.0)
    recorder.breaker.throttle(OpenReason.SPEND_LIMIT, "spend_limit", 116.0, 150.0)
    assert recorder.states == [(OpenReason.QUOTA, "quota: retry_after"), None, (OpenReason.SPEND_LIMIT, "spend_limit")]
    assert recorder.breaker.reported == BreakerState(OpenReason.SPEND_LIMIT, "spend_limit", 110.0, 150.0)


def test_another_message_of_the_same_throttle_is_one_change(recorder: Recorder) -> None:
    for now, reason in ((100.0, "own_quota"), (106.0, "own_quota"), (107.0, "retry_after"), (108.0, "retry_after")):
        recorder.breaker.throttle(OpenReason.QUOTA, f"quota: {reason}", now, 140.0)
    assert recorder.states == [(OpenReason.QUOTA, "quota: own_quota"), (OpenReason.QUOTA, "quota: retry_after")]


def test_open_takes_precedence_over_throttled(recorder: Recorder) -> None:
    recorder.breaker.throttle(OpenReason.SPEND_LIMIT, "spend_limit", 100.0, 160.0)
    recorder.breaker.throttle(OpenReason.SPEND_LIMIT, "spend_limit", 105.0, 160.0)
    recorder.breaker.trip(DOWN, 106.0)
    recorder.breaker.throttle(OpenReason.SPEND_LIMIT, "spend_limit", 107.0, 160.0)
    recorder.breaker.clear_throttle()
    assert recorder.states == [(OpenReason.SPEND_LIMIT, "spend_limit"), (OpenReason.API, DOWN)]
    assert recorder.breaker.open_state is not None
