from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest

from stream_scorer.errors import SettingsError
from stream_scorer.local.http_server.models import Transfer, read_faults
from stream_scorer.local.simulator.fault_script import FaultBook, RequestSummary, asked_in
from stream_scorer.local.simulator.faults import Fault, FaultAction, FaultMatch, ResultEdit

if TYPE_CHECKING:
    from collections.abc import Callable

parse_faults = partial(read_faults, model=Fault)


def book(*faults: dict[str, Any]) -> FaultBook:
    script = FaultBook()
    script.add(*parse_faults(list(faults)))
    return script


def fault(status: int = 503, *, path: str = "score", contact_id: str | None = None, **more: Any) -> dict[str, Any]:
    return {"match": {"path": path, "contact_id": contact_id}, "action": {"status": status}, **more}


def statuses(script: FaultBook, requests: int) -> list[int | None]:
    actions = [script.take("score") for _ in range(requests)]
    return [action and action.status for action in actions]


def test_a_fault_applies_once_by_default() -> None:
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


def asked(*ids: str, version: str | None = None) -> Callable[[], RequestSummary]:
    return lambda: RequestSummary(ids, version)


def acts(match: dict[str, Any], *ids: str, version: str | None = None) -> bool:
    script = book({"match": {"path": "score", **match}, "action": {"status": 500}})
    return script.take("score", asked(*ids, version=version)) is not None


def test_a_fault_for_a_contact_leaves_other_requests_alone() -> None:
    script = book(fault(contact_id="C-7", times=None))
    assert script.take("score", asked("C-1", "C-70")) is None
    assert script.take("score", asked("C-1", "C-7")) is not None
    assert script.take("score", asked("C-7")) is not None


def test_a_fault_can_look_at_what_is_asked() -> None:
    assert acts({"contact_prefix": "C-7"}, "A", "C-70")
    assert not acts({"contact_prefix": "C-7"}, "A", "XC-7")
    assert acts({"model_version": "v2"}, "A", version="v2")
    assert not acts({"model_version": "v2"}, "A", version="v1")
    assert acts({"model_version": ""}, "A")
    assert not acts({"model_version": ""}, "A", version="v1")
    assert acts({"min_contacts": 2}, "A", "B")
    assert not acts({"min_contacts": 2}, "A")
    assert not acts({"min_contacts": 1, "contact_id": "B"}, "A"), "all that is given must hold"


def test_a_share_of_the_requests_is_the_same_in_every_run_and_another_with_another_seed() -> None:
    def run(seed: int) -> list[bool]:
        script = book(
            {"match": {"path": "score", "share": 0.3, "seed": seed}, "times": None, "action": {"status": 500}}
        )
        return [script.take("score") is not None for _ in range(1000)]

    assert run(1) == run(1) != run(2)
    assert 250 < sum(run(1)) < 350


def test_what_is_not_chosen_is_left_to_the_next_fault() -> None:
    script = book({"match": {"path": "score", "share": 0.0}, "action": {"status": 500}}, fault(429))
    assert statuses(script, 1) == [429]


def test_requests_are_only_looked_into_when_a_fault_needs_it() -> None:
    def never() -> RequestSummary:
        raise AssertionError("the body was parsed for nothing")

    assert book(fault()).take("score", never) is not None
    assert book(fault(contact_id="C-1", path="score", times=1), fault()).take("score", asked("C-2")) is not None


def test_faults_with_an_owner_can_be_taken_out() -> None:
    script = book(fault(503))
    script.add(*parse_faults([fault(429, times=None)]), owner="step 1")
    assert statuses(script, 2) == [503, 429]
    script.remove("step 1")
    assert statuses(script, 1) == [None]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"contacts":[{"contactId":"a"},{"contactId":"b"}],"modelVersion":"v1"}', RequestSummary(("a", "b"), "v1")),
        (b'{"contacts":[{"contactId":"a"}]}', RequestSummary(("a",))),
        (b'{"contacts":[{"contactId":["a"]}]}', RequestSummary()),
        (b'{"contacts":7}', RequestSummary()),
        (b'[{"contacts":[]}]', RequestSummary()),
        (b"{", RequestSummary()),
        (b"[" * 100_000, RequestSummary()),
    ],
)
def test_what_is_asked_is_read_as_far_as_it_can_be(body: bytes, expected: RequestSummary) -> None:
    assert asked_in(body) == expected


def test_the_state_has_the_progress_of_the_script_and_clear_ends_it() -> None:
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
        ([{"match": {"path": "score"}, "action": {}}], "needs status, results, transfer, drop or delay_ms"),
        ([{"match": {"path": "score"}, "action": {"status": 500, "drop": "after"}}], "either a status or a drop"),
        ([{"match": {"path": "score"}, "action": {"drop": "sometimes"}}], "0.action.drop"),
        ([{"match": {"path": "score"}, "action": {"status": 99}}], "0.action.status"),
        ([{"match": {"path": "score"}, "action": {"delay_ms": 5, "body": "html"}}], "belong to a status"),
        ([{"match": {"path": "score"}, "action": {"status": 500, "headers": {"a": "b\nc"}}}], "0.action.headers"),
        ([{"match": {"path": "score"}, "action": {"status": 500}, "times": 0}], "0.times"),
        ([{"match": {"path": "score", "share": 2}, "action": {"status": 500}}], "0.match.share"),
        ([{"match": {"path": "score"}, "action": {"results": [{"do": "lose"}]}}], "0.action.results.0.do"),
        ([{"match": {"path": "score"}, "action": {"results": [{"do": "set", "field": "score"}]}}], "a literal"),
        ([{"match": {"path": "score"}, "action": {"results": [{"do": "remove"}]}}], "need a field"),
        ([{"match": {"path": "score"}, "action": {"results": [{"do": "omit", "value": 1}]}}], "the others have none"),
        ([{"match": {"path": "score"}, "action": {"results": [{"do": "omit", "of": {}}]}}], "exactly one of"),
        ([{"match": {"path": "score"}, "action": {"results": [{"do": "reverse", "of": "all"}]}}], "leave out of"),
        ([{"match": {"path": "score"}, "action": {"results": [{"do": "omit"}], "drop": "after"}}], "a real answer"),
        ([{"match": {"path": "score"}, "action": {"transfer": "cut", "drop": "after"}}], "leave out transfer"),
        ([{"match": {"path": "score"}, "action": {"transfer": "lost"}}], "0.action.transfer"),
        ([{"match": {"path": "score"}, "action": {"transfer": "cut", "status": 204}}], "has no body"),
        ([{"match": {"path": "score"}, "action": {"delay_ms": 1, "names": "all"}}], "names belong to a status"),
        ([{"match": {"path": "score"}, "action": {"status": 400, "names": "all", "body": "html"}}], "body 'platform'"),
        ([{"match": {"path": "token"}, "action": {"results": [{"do": "omit"}]}}], "leave out results"),
        ([{"match": {"path": "score"}, "action": {"status": 500}, "time": 1}], "0.time"),
    ],
)
def test_a_malformed_script_is_refused_in_one_line_that_names_the_place(script: Any, part: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        parse_faults(script)
    assert part in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_every_fault_that_the_page_shows_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    shown = [json.loads(text) for text in re.findall(r'`(\{"(?:status|results|transfer|drop|delay_ms)".*?\})`', page)]
    assert len(shown) > 20
    for action in shown:
        parse_faults([{"match": {"path": "score"}, "action": action}])
    words = {name for model in (FaultMatch, FaultAction, ResultEdit) for name in model.model_fields}
    words |= {word for name in ("do", "field") for word in get_args(ResultEdit.model_fields[name].annotation)}
    words |= set(get_args(Transfer))
    assert {word for word in words if isinstance(word, str) and not re.search(rf"[`\"]{word}\b", page)} == set()
