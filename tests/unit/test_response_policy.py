"""Rows of the table of contract section 5: the class of a response, and the decision after a failure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support_core import (
    answered,
    contact,
    cut_off,
    exchange,
    forbidden,
    ids,
    malformed,
    no_connection,
    no_token,
    not_found,
    policy,
    rate_limited,
    refused,
    result,
    server_error,
    timed_out,
    too_large,
    unexpected,
)

from stream_scorer.core.http_failure import HttpFailure
from stream_scorer.core.scoring.api_response import Answered, NotFound, Unavailable
from stream_scorer.core.scoring.batcher import BatchKey
from stream_scorer.core.scoring.request import Request
from stream_scorer.core.scoring.response_policy import (
    Context,
    Decision,
    Failure,
    FailureKind,
    Results,
    after_results,
    at_once,
    classify,
    unanswered_twice,
    while_none_succeed,
    while_others_succeed,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_scorer.core.scoring.api_response import ApiResponse
    from stream_scorer.core.scoring.types import Contact

NOW = 1_000.0
OWN = BatchKey(None, version_from_event=False)
OF_EVENT = BatchKey("v9", version_from_event=True)
SPLITTABLE = [FailureKind.REFUSED, FailureKind.SERVER_ERROR]


def contacts(names: Iterable[str]) -> tuple[Contact, ...]:
    return tuple(contact(name, ord(name[-1])) for name in names)


def request(names: Iterable[str] = "abcd", *, key: BatchKey = OWN, failures: int = 1, **more: Any) -> Request:
    """A request whose first attempt was sent, and whose failure is counted."""
    values: dict[str, Any] = {"attempts": 1, "first_sent_ms": 500, "sent_at": NOW - 50.0, "failures": failures}
    return Request("sent", key, contacts(names), **values | more)


def deferred(names: Iterable[str]) -> Request:
    again = [one._replace(record=one.record._replace(origin="contact-features/0/1")) for one in contacts(names)]
    return replace(request("a"), contacts=tuple(again))


def failure(kind: FailureKind, *named: str, after_s: float | None = None) -> Failure:
    status = None if kind is FailureKind.TIMEOUT else 500
    return Failure(kind, exchange(status), "no good", frozenset(named), after_s)


def context() -> Context:
    return Context(NOW, 1_700_000, 0.5, ids("new"))


def results(of: Request, answer: ApiResponse) -> Results:
    found = classify(of, answer, policy())
    assert isinstance(found, Results)
    return found


def failed(of: Request, answer: ApiResponse) -> Failure:
    found = classify(of, answer, policy())
    assert isinstance(found, Failure)
    return found


def shown(found: Iterable[Contact]) -> str:
    return "".join(one.contact_id for one in found)


def parts(requests: Sequence[Request]) -> list[str]:
    return [shown(one.contacts) for one in requests]


def immediate(of: Request, kind: FailureKind, *, max_retries: int = 3, after_s: float | None = None) -> Decision | None:
    return at_once(of, failure(kind, after_s=after_s), policy(max_retries=max_retries), context())


def divided(of: Request, kind: FailureKind = FailureKind.REFUSED, *named: str) -> Decision:
    return while_others_succeed(of, failure(kind, *named), policy(), context())


class TestResults:
    def test_each_result_goes_to_the_contact_of_its_id_and_unknown_ids_are_counted(self) -> None:
        found = results(request("ab"), Answered(exchange(), [result("b", 0.6), result("x"), result("a", 0.4)]))
        assert [(one.contact.contact_id, one.score) for one in found.scored] == [("a", 0.4), ("b", 0.6)]
        assert (found.unanswered, found.unmatched) == ((), 1)

    def test_facts_are_those_of_the_request_and_its_last_exchange(self) -> None:
        facts = results(request("a", attempts=3), answered("a")).scored[0].request
        assert (facts.batch_id, facts.request_contacts, facts.attempts) == ("sent", 1, 3)
        assert (facts.started_at_ms, facts.finished_at_ms, facts.latency_ms) == (500, 1_200, 200.0)
        assert (facts.model_id, facts.api_status, facts.correlation_id) == ("model", 200, "correlation")

    def test_odd_scores_carry_their_review_reasons(self) -> None:
        narrow = {"contactId": "a", "score": 0.5, "confidenceInterval": {"lower": 0.49, "upper": 0.51}}
        assert results(request("a"), Answered(exchange(), [narrow])).scored[0].review_reasons == ("narrow_interval",)

    @pytest.mark.parametrize("given", ["abcdefghij", "abcdefghi", "abc", "j"])
    def test_one_usable_result_is_enough_and_the_unanswered_are_sent_once_more(self, given: str) -> None:
        whole = request("abcdefghij")
        found = results(whole, answered(given))
        assert shown(one.contact for one in found.scored) == given
        again = after_results(whole, found, context())
        left_out = "".join(sorted(set("abcdefghij") - set(given)))
        assert parts(again) == [left_out] * bool(left_out)
        assert all(one.retried_unanswered and not one.bisecting and one.failures == 0 for one in again)

    @pytest.mark.parametrize(
        "items",
        [
            [{"contactId": "a"}],
            [{"contactId": "a", "score": "0.5", "confidenceInterval": {"lower": 0.3, "upper": 0.7}}],
            [{"contactId": "a", "score": 0.5, "confidenceInterval": {"lower": None, "upper": 0.7}}],
            [result("a", 0.4), result("a", 0.6)],
        ],
    )
    def test_a_result_without_numbers_or_two_different_ones_count_as_unanswered(self, items: list[Any]) -> None:
        assert shown(results(request("ab"), Answered(exchange(), [*items, result("b")])).unanswered) == "a"
        assert failed(request("a"), Answered(exchange(), items)).kind is FailureKind.NO_RESULT

    @pytest.mark.parametrize("of", [request("ab", retried_unanswered=True), deferred("ab")])
    def test_left_out_twice_or_in_a_retry_round_they_have_failed(self, of: Request) -> None:
        found = results(of, answered("a"))
        decision = unanswered_twice(of, found, exchange(), policy())
        assert [(one.contact.contact_id, one.reason) for one in decision.failed] == [("b", "no_result")]
        assert not unanswered_twice(request("ab"), found, exchange(), policy()).failed

    def test_a_success_sends_the_contact_in_the_sibling_and_then_all_that_was_postponed(self) -> None:
        searching = request("ab", sibling=contacts("cdef"), postponed=contacts("gh"))
        (half,) = after_results(searching, results(searching, answered("ab")), context())
        assert (shown(half.contacts), shown(half.sibling), shown(half.postponed)) == ("cd", "ef", "gh")
        last = replace(searching, sibling=contacts("c"))
        (alone,) = after_results(last, results(last, answered("ab")), context())
        assert (shown(alone.contacts), alone.sibling, shown(alone.postponed)) == ("c", (), "gh")
        ended = replace(searching, sibling=())
        (rest,) = after_results(ended, results(ended, answered("ab")), context())
        assert (shown(rest.contacts), rest.postponed) == ("gh", ())

    def test_a_success_without_the_named_sends_them_once_more_together(self) -> None:
        without = request("ac", named=contacts("bd"))
        (again,) = after_results(without, results(without, answered("ac")), context())
        assert (shown(again.contacts), again.was_named, again.failures) == ("bd", True, 0)


@pytest.mark.parametrize(
    ("answer", "key", "kind", "is_fatal"),
    [
        (answered([]), OWN, FailureKind.NO_RESULT, False),
        (refused(), OWN, FailureKind.REFUSED, False),
        (refused(status=422), OWN, FailureKind.REFUSED, False),
        (unexpected(302), OWN, FailureKind.REFUSED, False),
        (unexpected(409), OWN, FailureKind.REFUSED, False),
        (forbidden(401), OWN, FailureKind.REFUSED, True),
        (forbidden(403), OWN, FailureKind.REFUSED, True),
        (forbidden(403, platform_error=False), OWN, FailureKind.REFUSED, False),
        (not_found(), OWN, FailureKind.REFUSED, True),
        (not_found(platform_error=False), OWN, FailureKind.REFUSED, False),
        (not_found(platform_error=False), OF_EVENT, FailureKind.REFUSED, False),
        (not_found(), OF_EVENT, FailureKind.UNKNOWN_VERSION, False),
        (NotFound(exchange(404), "no model", True, True), OF_EVENT, FailureKind.REFUSED, True),
        (too_large(), OWN, FailureKind.TOO_LARGE, False),
        (server_error(500), OWN, FailureKind.SERVER_ERROR, False),
        (malformed(), OWN, FailureKind.SERVER_ERROR, False),
        (no_connection(), OWN, FailureKind.SERVER_ERROR, False),
        (Unavailable(exchange(408), HttpFailure.TIMEOUT, "408"), OWN, FailureKind.SERVER_ERROR, False),
        (timed_out(), OWN, FailureKind.TIMEOUT, False),
        (cut_off(), OWN, FailureKind.CUT_OFF, False),
        (rate_limited(), OWN, FailureKind.RATE_LIMITED, False),
        (no_token(), OWN, FailureKind.LOGIN_UNAVAILABLE, False),
    ],
)
def test_rows(answer: ApiResponse, key: BatchKey, kind: FailureKind, *, is_fatal: bool) -> None:
    found = failed(request(key=key), answer)
    assert (found.kind, found.is_fatal) == (kind, is_fatal)
    assert found.message


def test_names_that_are_not_in_the_request_are_ignored() -> None:
    assert failed(request("ab"), refused("b", "x")).named == {"b"}


class TestImmediateDecisions:
    @pytest.mark.parametrize(
        ("kind", "retries"),
        [
            (FailureKind.SERVER_ERROR, 1),
            (FailureKind.CUT_OFF, 1),
            (FailureKind.LOGIN_UNAVAILABLE, 3),
            (FailureKind.RATE_LIMITED, 99),
            (FailureKind.REFUSED, 0),
            (FailureKind.TOO_LARGE, 0),
            (FailureKind.TIMEOUT, 0),
            (FailureKind.NO_RESULT, 0),
            (FailureKind.UNKNOWN_VERSION, 0),
        ],
    )
    def test_retries_of_a_single_contact_without_evidence(self, kind: FailureKind, retries: int) -> None:
        """``SERVER_ERROR`` is also a lost connection and a malformed body."""
        for failures in (1, 2, 3, 4):
            decision = immediate(request("a", failures=failures), kind)
            assert (decision is not None) == (failures <= retries)
            if decision is not None:
                assert parts(decision.requests) == ["a"]
                assert decision.requests[0].batch_id == "sent"
        if retries < 99:
            assert immediate(request("a"), kind, max_retries=0) is None

    @pytest.mark.parametrize(("kind", "delay_s"), [(FailureKind.TOO_LARGE, None), (FailureKind.TIMEOUT, 1.5)])
    def test_what_may_be_too_large_is_sent_again_in_halves(self, kind: FailureKind, delay_s: float | None) -> None:
        decision = immediate(request("abcd", postponed=contacts("e")), kind)
        assert decision is not None
        assert parts(decision.requests) == ["ab", "cd", "e"]
        due = 0.0 if delay_s is None else NOW + delay_s
        assert [one.not_before for one in decision.requests] == [due, due, 0.0]
        assert immediate(request("abcd", failures=4), kind) is None

    @pytest.mark.parametrize(("failures", "delay_s"), [(1, 1.5), (2, 3.0), (3, 6.0)])
    def test_backoff_doubles(self, failures: int, delay_s: float) -> None:
        decision = immediate(request("a", failures=failures), FailureKind.LOGIN_UNAVAILABLE)
        assert decision is not None
        assert decision.requests[0].not_before == decision.requests[0].backoff_until == NOW + delay_s

    @pytest.mark.parametrize(("after_s", "delay_s"), [(77.0, 77.0), (901.0, 900.0)])
    def test_retry_after_is_obeyed_up_to_its_limit_beside_the_backoff(self, after_s: float, delay_s: float) -> None:
        decision = immediate(request("a"), FailureKind.SERVER_ERROR, after_s=after_s)
        assert decision is not None
        (again,) = decision.requests
        assert (again.not_before, again.backoff_until) == (NOW + delay_s, NOW + 1.5)


class TestWhileOthersSucceed:
    @pytest.mark.parametrize("kind", SPLITTABLE)
    def test_the_first_half_is_sent_and_its_sibling_waits(self, kind: FailureKind) -> None:
        decision = divided(request("abcde", postponed=contacts("fg")), kind)
        (half,) = decision.requests
        assert (shown(half.contacts), shown(half.sibling), shown(half.postponed)) == ("ab", "cde", "fg")
        assert (half.batch_id, half.bisecting, half.not_before) == ("new-1", True, 0.0)
        assert not decision.failed

    def test_the_half_that_fails_postpones_its_sibling(self) -> None:
        (half,) = divided(request("abc", sibling=contacts("def"), postponed=contacts("gh"))).requests
        assert (shown(half.contacts), shown(half.sibling), shown(half.postponed)) == ("a", "bc", "defgh")

    @pytest.mark.parametrize(
        ("kind", "reason"),
        [
            (FailureKind.REFUSED, "refused_by_api"),
            (FailureKind.SERVER_ERROR, "refused_by_api"),
            (FailureKind.TIMEOUT, "refused_by_api"),
            (FailureKind.CUT_OFF, "refused_by_api"),
            (FailureKind.TOO_LARGE, "too_large"),
        ],
    )
    @pytest.mark.parametrize("named", [(), ("a",)])
    def test_alone_the_contact_has_failed_and_what_was_postponed_is_sent(
        self, kind: FailureKind, reason: str, named: tuple[str, ...]
    ) -> None:
        decision = divided(request("a", postponed=contacts("bc"), named=contacts("d")), kind, *named)
        assert parts(decision.requests) == ["bc", "d"]
        (one,) = decision.failed
        assert (one.contact.contact_id, one.reason, one.is_proven) == ("a", reason, False)
        assert one.facts.request_contacts == 1

    def test_named_contacts_are_set_aside_and_the_rest_is_sent(self) -> None:
        decision = divided(request("abcd", postponed=contacts("e")), FailureKind.REFUSED, "b", "d")
        assert parts(decision.requests) == ["ac", "e"]
        assert shown(decision.requests[0].named) == "bd"
        assert not decision.failed

    def test_all_named_are_divided_as_none(self) -> None:
        assert parts(divided(request("ab"), FailureKind.REFUSED, "a", "b").requests) == ["a"]

    def test_the_named_that_are_refused_again_are_proven_and_the_rest_of_them_is_sent(self) -> None:
        decision = divided(request("bd", was_named=True), FailureKind.REFUSED, "b")
        assert [(one.contact.contact_id, one.is_proven) for one in decision.failed] == [("b", True)]
        assert parts(decision.requests) == ["d"]

    def test_an_answer_without_results_is_sent_once_more_and_then_all_have_failed_without_division(self) -> None:
        once = divided(request("ab", postponed=contacts("c")), FailureKind.NO_RESULT)
        assert parts(once.requests) == ["ab", "c"]
        assert [one.retried_unanswered for one in once.requests] == [True, False]
        twice = divided(request("ab", retried_unanswered=True, postponed=contacts("c")), FailureKind.NO_RESULT)
        assert parts(twice.requests) == ["c"]
        assert [(one.contact.contact_id, one.reason) for one in twice.failed] == [
            ("a", "no_result"),
            ("b", "no_result"),
        ]

    def test_an_unknown_version_fails_all_of_them(self) -> None:
        decision = divided(request("ab", sibling=contacts("c"), key=OF_EVENT), FailureKind.UNKNOWN_VERSION)
        assert [(one.contact.contact_id, one.reason) for one in decision.failed] == [
            (name, "unknown_model_version") for name in "abc"
        ]
        assert not decision.requests

    @pytest.mark.parametrize("kind", SPLITTABLE)
    def test_deferred_contacts_are_sent_one_by_one(self, kind: FailureKind) -> None:
        assert parts(divided(deferred("abc"), kind).requests) == ["a", "b", "c"]

    def test_what_timed_out_before_is_sent_in_quarters(self) -> None:
        """Each attempt lasts its time-out."""
        assert parts(divided(request("abcdefg", failures=1), FailureKind.TIMEOUT).requests) == ["abc", "defg"]
        assert parts(divided(request("abcdefg", failures=2), FailureKind.TIMEOUT).requests) == ["a", "bc", "de", "fg"]

    def test_the_login_service_divides_nothing(self) -> None:
        decision = divided(request(failures=4), FailureKind.LOGIN_UNAVAILABLE)
        assert decision == Decision(requests=(request().due_at(NOW + 1.5, NOW + 1.5),))


class TestWhileNoneSucceeds:
    @pytest.mark.parametrize("kind", list(FailureKind))
    def test_retries_and_then_the_breaker(self, kind: FailureKind) -> None:
        retried = 0
        for failures in (1, 2, 3, 4):
            decision = while_none_succeed(request("a", failures=failures), failure(kind), policy(), context())
            assert not decision.failed
            assert (decision.trip is None) == bool(decision.requests)
            retried += decision.trip is None
        assert retried == (3 if kind.is_retryable else 0)

    @pytest.mark.parametrize("kind", [FailureKind.TOO_LARGE, FailureKind.CUT_OFF])
    def test_what_may_be_too_large_is_made_smaller_first(self, kind: FailureKind) -> None:
        decision = while_none_succeed(request("abcd", failures=9), failure(kind), policy(), context())
        assert parts(decision.requests) == ["ab", "cd"]
        assert decision.trip is None
