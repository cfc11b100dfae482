"""Circuit breaker of a model version, and the condition under which those of all versions open that of the API."""

from __future__ import annotations

import pytest

from stream_scorer.scoring.version_state import NEVER, Phase, VersionState, VersionStates

DOWN = "HTTP 503"


def succeed(state: VersionState, contacts: int, now: float, *, is_control: bool = False) -> None:
    state.record_success(contacts, now - 0.1, now, is_control=is_control)


def test_one_lucky_probe_does_not_close_it() -> None:
    state = VersionState("v1", 1_000)
    state.trip(DOWN, 0.0)
    assert (state.phase, state.is_open, state.reason) == (Phase.OPEN, True, DOWN)
    succeed(state, 1, 10.0)
    assert (state.phase, state.is_open) == (Phase.HALF_OPEN, False)
    state.trip(DOWN, 11.0)
    assert state.is_open
    succeed(state, 1, 20.0)
    for now in range(21, 29):
        assert state.phase is Phase.HALF_OPEN
        succeed(state, state.batch_size.size, float(now))
    assert state.phase is Phase.HALF_OPEN
    succeed(state, 512, 30.0)
    assert (state.phase, state.batch_size.size) == (Phase.CLOSED, 1_000)


def test_a_control_is_evidence_but_makes_no_request_larger() -> None:
    state = VersionState(None, 8)
    state.batch_size.record_too_large(8, 0.0, 0.5, is_certain=True)
    state.failures_in_row = 7
    succeed(state, 1, 5.0, is_control=True)
    assert (state.succeeded_at, state.succeeded_sent_at, state.failures_in_row) == (5.0, 4.9, 0)
    assert state.batch_size.size == 4
    succeed(state, 1, 6.0)
    assert state.batch_size.size == 4, "its limit"


def test_an_answer_that_overtook_another_leaves_the_later_time() -> None:
    state = VersionState(None, 8)
    state.record_success(1, 5.0, 6.0, is_control=False)
    state.record_success(1, 2.0, 7.0, is_control=False)
    assert (state.succeeded_sent_at, state.succeeded_at) == (5.0, 7.0)


def test_the_apis_breaker_is_open_while_those_of_all_versions_in_use_are() -> None:
    states = VersionStates(8)
    assert states.api_open_reason(0.0) is None
    first, second = states.use("v1", 0.0), states.use("v2", 0.0)
    first.trip(DOWN, 1.0)
    assert states.api_open_reason(1.0) is None
    second.trip("HTTP 500", 2.0)
    assert states.api_open_reason(2.0) == "HTTP 500"
    assert states.opened == 2
    joined = states.get("v3", 3.0)
    assert (joined.is_open, joined.reason) == (True, "HTTP 500")
    joined.half_open()
    assert states.api_open_reason(4.0) == "HTTP 500", "nothing was sent for it"
    states.use("v3", 5.0)
    assert states.api_open_reason(5.0) is None
    assert not states.get("v4", 6.0).is_open


def test_a_version_counts_for_ten_minutes_after_its_last_request() -> None:
    states = VersionStates(8)
    states.use("v1", 0.0)
    states.use("v2", 300.0).trip(DOWN, 300.0)
    assert states.api_open_reason(600.0) is None
    assert states.api_open_reason(601.0) == DOWN


@pytest.mark.parametrize(("waiting", "kept"), [(set(), {"v2"}), ({"v1"}, {"v1", "v2"})])
def test_versions_that_are_neither_in_use_nor_waited_for_are_forgotten(
    waiting: set[str | None], kept: set[str]
) -> None:
    states = VersionStates(8)
    states.use("v1", 0.0)
    states.use("v2", 500.0)
    states.forget_idle(601.0, waiting)
    assert {state.model_version for state in states} == kept
    states.forget_idle(9_999.0, set())
    assert len(list(states)) == 1, "the last one has the time of the last success"


def test_successes_of_other_versions() -> None:
    states = VersionStates(8)
    assert states.succeeded_at("v1") == states.others_succeeded_at("v1") == NEVER
    succeed(states.use("v1", 0.0), 1, 5.0)
    succeed(states.use(None, 0.0), 1, 4.0)
    assert (states.succeeded_at("v1"), states.others_succeeded_at("v1")) == (5.0, 4.0)
    assert states.others_succeeded_at("v2") == 5.0
