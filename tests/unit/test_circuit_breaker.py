"""The state machine itself: what it tells, and when."""

from __future__ import annotations

import pytest

from stream_scorer.scoring.circuit_breaker import Cause, Hold, Holding

DOWN = "HTTP 503 service.unavailable: try again"


class Told:
    """Everything that a `Holding` tells."""

    def __init__(self) -> None:
        self.changes: list[tuple[Hold | None, Hold | None]] = []
        self.probes: list[str] = []
        self.holding = Holding(
            10.0, on_change=lambda before, now: self.changes.append((before, now)), on_probe=self.probes.append
        )

    @property
    def states(self) -> list[tuple[Cause, str] | None]:
        return [None if state is None else (state.cause, state.reason) for _, state in self.changes]


def hold(next_probe_at: float, probes: int = 0) -> Hold:
    return Hold(Cause.API, DOWN, 100.0, next_probe_at, probes, began_with=DOWN)


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_hold_says_since_when_why_and_when_the_next_probe_is_due(told: Told) -> None:
    assert told.holding.begin(DOWN, 100.0)
    assert told.holding.current == hold(110.0)
    assert told.holding.known == told.holding.current
    assert told.changes == [(None, told.holding.current)]


def test_a_retry_after_moves_the_first_probe_and_a_later_one_puts_it_off(told: Told) -> None:
    told.holding.begin(DOWN, 100.0, until=140.0)
    told.holding.put_off(130.0)
    assert told.holding.known == hold(140.0)
    told.holding.put_off(150.0)
    assert not told.holding.begin("another", 120.0, until=160.0)
    assert told.holding.known == hold(160.0)
    assert len(told.changes) == 1, "when the next probe is due is no change worth telling"


def test_probes_that_fail_alike_are_counted_and_not_told(told: Told) -> None:
    told.holding.begin(DOWN, 100.0)
    for number in range(1, 6):
        told.holding.probe_failed(DOWN, 100.0 + 10.0 * number)
    assert told.holding.known == hold(160.0, probes=5)
    assert len(told.changes) == 1
    assert told.probes == ["failed"] * 5


@pytest.mark.parametrize(
    ("first", "later", "tells"),
    [
        (DOWN, "no connection to api: refused", True),
        (DOWN, DOWN.replace("503", "500"), True),
        ("HTTP 500 x: id 6f1e2b3c-1111-4222-8333-944455556666", "HTTP 500 x: id 00aa2b3c-1111-4222-8333-9", False),
        ("HTTP 500 at 1700000000123", "HTTP 500 at 1700000010456", False),
        ("the API answered 3 of 12 contacts", "the API answered 0 of 12 contacts", True),
        ("HTTP 500 deadbeef effaced", "HTTP 500 deadbeef defaced", True),
    ],
)
def test_another_reason_is_a_change_and_another_id_is_none(told: Told, first: str, later: str, *, tells: bool) -> None:
    told.holding.begin(first, 100.0)
    told.holding.probe_failed(later, 110.0)
    assert len(told.changes) == 1 + tells
    assert told.holding.known is not None
    assert (told.holding.known.reason, told.holding.known.since) == (later, 100.0), "what is known is always the latest"


def test_the_end_is_told_with_what_was_known_last(told: Told) -> None:
    told.holding.begin(DOWN, 100.0)
    told.holding.probe_failed(DOWN, 110.0)
    told.holding.end()
    assert told.changes[-1] == (hold(120.0, probes=1), None)
    assert told.probes == ["failed", "recovered"]
    assert told.holding.current is told.holding.known is None
    told.holding.end()
    assert len(told.changes) == 2


def test_nothing_happens_to_a_hold_that_there_is_not(told: Told) -> None:
    told.holding.put_off(500.0)
    told.holding.probe_failed(DOWN, 100.0)
    told.holding.end()
    assert (told.changes, told.probes, told.holding.known) == ([], [], None)


def test_a_broken_contract_is_probed_at_once(told: Told) -> None:
    told.holding.begin("the API refuses every contact: HTTP 400", 100.0, broken_contract=True)
    broken = told.holding.current
    assert broken is not None
    assert (broken.cause, broken.broken_contract, broken.next_probe_at) == (Cause.CONTRACT, True, 100.0)
    assert broken.says("HTTP 400")
    assert not broken.says("HTTP 503")


def test_a_pause_is_told_once_it_has_lasted(told: Told) -> None:
    for tenth in range(49):
        told.holding.pause(Cause.QUOTA, "quota: own_quota", 100.0 + tenth / 10, 140.0)
    assert told.changes == []
    assert told.holding.known is None
    told.holding.pause(Cause.QUOTA, "quota: own_quota", 105.0, 140.0)
    told.holding.pause(Cause.QUOTA, "quota: own_quota", 105.1, 141.0)
    assert told.states == [(Cause.QUOTA, "quota: own_quota")]
    assert told.holding.known == Hold(Cause.QUOTA, "quota: own_quota", 100.0, 141.0)
    assert told.holding.current is None, "no probe ends it"
    told.holding.resume()
    assert told.states[1:] == [None]


def test_short_pauses_are_the_ordinary_pace(told: Told) -> None:
    for second in range(60):
        told.holding.pause(Cause.QUOTA, "quota: own_quota", 100.0 + second, 101.0 + second)
        told.holding.resume()
    assert told.changes == []


def test_a_pause_for_another_cause_begins_anew(told: Told) -> None:
    told.holding.pause(Cause.QUOTA, "quota: retry_after", 100.0, 110.0)
    told.holding.pause(Cause.QUOTA, "quota: retry_after", 106.0, 110.0)
    told.holding.pause(Cause.BUDGET, "budget", 110.0, 150.0)
    told.holding.pause(Cause.BUDGET, "budget", 116.0, 150.0)
    assert told.states == [(Cause.QUOTA, "quota: retry_after"), None, (Cause.BUDGET, "budget")]
    assert told.holding.known == Hold(Cause.BUDGET, "budget", 110.0, 150.0)


def test_another_reason_of_the_same_pause_is_one_change(told: Told) -> None:
    for now, reason in ((100.0, "own_quota"), (106.0, "own_quota"), (107.0, "retry_after"), (108.0, "retry_after")):
        told.holding.pause(Cause.QUOTA, f"quota: {reason}", now, 140.0)
    assert told.states == [(Cause.QUOTA, "quota: own_quota"), (Cause.QUOTA, "quota: retry_after")]


def test_a_hold_goes_before_a_pause(told: Told) -> None:
    told.holding.pause(Cause.BUDGET, "budget", 100.0, 160.0)
    told.holding.pause(Cause.BUDGET, "budget", 105.0, 160.0)
    told.holding.begin(DOWN, 106.0)
    told.holding.pause(Cause.BUDGET, "budget", 107.0, 160.0)
    told.holding.resume()
    assert told.states == [(Cause.BUDGET, "budget"), (Cause.API, DOWN)]
    assert told.holding.current is not None
