from __future__ import annotations

from typing import Any

import pytest

from stream_scorer.errors import SettingsError
from stream_scorer.local.simulator.faults import FaultBook, parse_faults


def book(*faults: dict[str, Any]) -> FaultBook:
    script = FaultBook()
    script.add(*parse_faults(list(faults)))
    return script


def fault(status: int = 503, *, path: str = "score", contact_id: str | None = None, **more: Any) -> dict[str, Any]:
    return {"match": {"path": path, "contact_id": contact_id}, "action": {"status": status}, **more}


def statuses(script: FaultBook, requests: int) -> list[int | None]:
    actions = [script.take("score") for _ in range(requests)]
    return [action and action.status for action in actions]


def test_a_fault_acts_once_unless_told_otherwise() -> None:
    assert statuses(book(fault()), 3) == [503, None, None]
    assert statuses(book(fault(times=2)), 3) == [503, 503, None]
    assert statuses(book(fault(times=None)), 3) == [503, 503, 503]


def test_after_lets_requests_pass_first() -> None:
    assert statuses(book(fault(after=2)), 4) == [None, None, 503, None]


def test_faults_act_in_their_order_one_a_request() -> None:
    assert statuses(book(fault(503, times=2), fault(429), fault(500)), 5) == [503, 503, 429, 500, None]


def test_a_fault_that_is_not_due_leaves_the_request_to_the_next() -> None:
    assert statuses(book(fault(503, after=1), fault(429)), 3) == [429, 503, None]


def test_a_fault_concerns_its_path_only() -> None:
    script = book(fault(path="token"))
    assert script.take("score") is None
    assert script.take("token") is not None


def test_a_fault_for_a_contact_leaves_other_requests_alone() -> None:
    script = book(fault(contact_id="C-7", times=None))
    assert script.take("score", lambda: {"C-1", "C-70"}) is None
    assert script.take("score", lambda: {"C-1", "C-7"}) is not None
    assert script.take("score", lambda: {"C-7"}) is not None


def test_contact_ids_are_only_looked_for_when_a_fault_needs_them() -> None:
    def never() -> frozenset[str]:
        raise AssertionError("the body was parsed for nothing")

    assert book(fault()).take("score", never) is not None
    assert book(fault(contact_id="C-1", path="score", times=1), fault()).take("score", lambda: {"C-2"}) is not None


def test_the_state_says_how_far_the_script_has_come_and_clear_ends_it() -> None:
    script = book(fault(after=1, times=None))
    statuses(script, 3)
    assert script.state() == [
        {"match": {"path": "score"}, "action": {"status": 503}, "times": None, "after": 1, "seen": 3, "fired": 2}
    ]
    script.clear()
    assert (script.state(), statuses(script, 1)) == ([], [None])


def test_retry_after_may_be_a_number_or_a_date() -> None:
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    for given, sent in ((3, "3"), ("3", "3"), (date, date)):
        (parsed,) = parse_faults([{"match": {"path": "score"}, "action": {"status": 429, "retry_after": given}}])
        assert parsed.action.retry_after == sent


@pytest.mark.parametrize(
    ("script", "part"),
    [
        ({}, "list"),
        ([{"match": {"path": "score"}}], "0.action"),
        ([{"match": {"path": "scores"}, "action": {"status": 500}}], "0.match.path"),
        ([{"match": {"path": "token", "contact_id": "C"}, "action": {"status": 500}}], "holds no contact"),
        ([{"match": {"path": "score"}, "action": {}}], "needs status, drop or delay_ms"),
        ([{"match": {"path": "score"}, "action": {"status": 500, "drop": "after"}}], "either a status or a drop"),
        ([{"match": {"path": "score"}, "action": {"drop": "sometimes"}}], "0.action.drop"),
        ([{"match": {"path": "score"}, "action": {"status": 99}}], "0.action.status"),
        ([{"match": {"path": "score"}, "action": {"delay_ms": 5, "body": "html"}}], "belong to a status"),
        ([{"match": {"path": "score"}, "action": {"status": 500, "headers": {"a": "b\nc"}}}], "0.action.headers"),
        ([{"match": {"path": "score"}, "action": {"status": 500}, "times": 0}], "0.times"),
        ([{"match": {"path": "score"}, "action": {"status": 500}, "time": 1}], "0.time"),
    ],
)
def test_a_malformed_script_is_refused_in_one_line_that_names_the_place(script: Any, part: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        parse_faults(script)
    assert part in str(refusal.value)
    assert "\n" not in str(refusal.value)
