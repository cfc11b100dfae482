"""The API's half of contract section 5, a test for each thing it says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support_core import (
    answered,
    contact,
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

from stream_scorer.core.batcher import BatchKey
from stream_scorer.core.events import Answer, Answered, Rejected, Scored
from stream_scorer.core.request import Request
from stream_scorer.core.response_policy import Context, Decision, decide

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_scorer.core.events import Contact

NOW = 1_000.0
OTHERS_WERE_ANSWERED = NOW - 1.0
UNAVAILABLE = {
    "408 or 504": timed_out(),
    "503": server_error(503),
    "500": server_error(500),
    "no JSON": malformed(),
    "429": rate_limited(),
    "no connection": no_connection(),
    "no token": no_token(),
}
HOLD_AT_ONCE = {"429", "no connection", "no token"}


def request(names: Sequence[str] = "abcd", *, key: BatchKey | None = None, attempts: int = 1, **more: Any) -> Request:
    contacts = tuple(contact(name, offset) for offset, name in enumerate(names))
    asked: dict[str, Any] = {
        "attempts": attempts,
        "round_attempts": attempts,
        "first_asked_ms": 500,
        "asked_since": NOW - 50.0,
        "round_since": NOW - 20.0,
    }
    return Request("asked", key or BatchKey(None, version_from_event=False), contacts, **asked | more)


def after(answer: Answer, asked: Request | None = None, last_2xx_at: float | None = None, **changes: Any) -> Decision:
    at = Context(NOW, 1_700_000, 0.5, last_2xx_at, ids("new"))
    return decide(asked or request(), answer, policy(**changes), at)


def names(of: Request) -> str:
    return "".join(one.contact_id for one in of.contacts)


def shown(contacts: Sequence[Contact]) -> str:
    return "".join(one.contact_id for one in contacts)


def rejections(decision: Decision) -> dict[str, str]:
    return {one.contact_id: one.reasons[0] for one in decision.outcomes if isinstance(one, Rejected)}


class TestResults:
    def test_every_answered_contact_is_scored_by_its_id(self) -> None:
        decision = after(Answered(exchange(), [result("b", 0.6), result("a", 0.4)]), request("ab"))
        assert [(one.contact.contact_id, one.score) for one in decision.outcomes if isinstance(one, Scored)] == [
            ("a", 0.4),
            ("b", 0.6),
        ]
        assert decision.answered
        assert not decision.requests

    def test_facts_are_those_of_the_request_and_its_last_exchange(self) -> None:
        facts = after(answered("a"), request("a", attempts=3)).outcomes[0].request
        assert facts is not None
        assert (facts.batch_id, facts.request_contacts, facts.attempts) == ("asked", 1, 3)
        assert (facts.started_at_ms, facts.finished_at_ms, facts.latency_ms) == (500, 1_200, 200.0)
        assert (facts.model_id, facts.api_status, facts.correlation_id) == ("model", 200, "correlation")

    def test_odd_scores_carry_their_review_reasons(self) -> None:
        narrow = {"contactId": "a", "score": 0.5, "confidenceInterval": {"lower": 0.49, "upper": 0.51}}
        (outcome,) = after(Answered(exchange(), [narrow]), request("a")).outcomes
        assert isinstance(outcome, Scored)
        assert outcome.review_reasons == ("narrow_interval",)

    def test_the_unanswered_are_asked_once_more(self) -> None:
        decision = after(answered("ac"))
        (again,) = decision.requests
        assert (names(again), again.batch_id, again.attempts) == ("bd", "new-1", 0)
        assert again.retried_unanswered
        assert not again.bisecting
        assert decision.answered

    @pytest.mark.parametrize(
        "item",
        [
            {"contactId": "a"},
            {"contactId": "a", "score": "0.5", "confidenceInterval": {"lower": 0.3, "upper": 0.7}},
            {"contactId": "a", "score": 0.5, "confidenceInterval": {"lower": None, "upper": 0.7}},
        ],
    )
    def test_a_result_without_numbers_counts_as_unanswered(self, item: dict[str, Any]) -> None:
        (again,) = after(Answered(exchange(), [item, result("b")]), request("ab")).requests
        assert names(again) == "a"

    def test_two_different_results_for_one_id_count_as_unanswered(self) -> None:
        (again,) = after(Answered(exchange(), [result("a", 0.4), result("a", 0.6)]), request("a")).requests
        assert names(again) == "a"

    def test_left_out_twice_is_no_result(self) -> None:
        decision = after(answered("a"), request("ab", retried_unanswered=True))
        assert rejections(decision) == {"b": "no_result"}
        assert not decision.requests

    def test_unknown_ids_are_counted(self) -> None:
        assert after(answered(["a", "stranger"]), request("a")).unmatched_results == 1

    def test_fewer_than_half_of_ten_is_as_5xx(self) -> None:
        asked = request("abcdefghij")
        decision = after(answered("abcd"), asked)
        assert not decision.outcomes
        assert not decision.answered
        assert decision.requests == (asked.failed().again_at(NOW + 1.5),)

    @pytest.mark.parametrize(("asked", "given"), [("abcdefghij", "abcde"), ("abcdefghi", "a")])
    def test_half_of_ten_or_any_of_nine_is_an_answer(self, asked: str, given: str) -> None:
        decision = after(answered(given), request(asked))
        assert decision.answered
        assert len(decision.outcomes) == len(given)


class TestRefusals:
    @pytest.mark.parametrize("status", [400, 422])
    def test_the_named_are_set_aside_and_the_others_asked_again(self, status: int) -> None:
        decision = after(refused("b", "d", "stranger", status=status))
        assert [one.contact.contact_id for one in decision.suspects] == ["b", "d"]
        assert [one.rejected.reasons for one in decision.suspects] == [("refused_by_api",)] * 2
        assert decision.suspects[0].rejected.api_status == status
        assert decision.suspects[0].since == NOW
        (rest,) = decision.requests
        assert (names(rest), rest.batch_id, rest.bisecting) == ("ac", "new-1", True)
        assert not decision.outcomes

    @pytest.mark.parametrize("named", [(), ("stranger",)])
    def test_without_a_name_the_first_half_is_asked_about(self, named: tuple[str, ...]) -> None:
        decision = after(refused(*named), request("abcde"))
        (half,) = decision.requests
        assert (names(half), shown(half.deferred_half), half.deferred) == ("ab", "cde", ())
        assert (half.batch_id, half.bisecting, half.not_before) == ("new-1", True, 0.0)
        assert not decision.suspects

    def test_a_large_one_is_halved_side_by_side(self) -> None:
        many = replace(request("a"), contacts=tuple(contact(f"c{number}") for number in range(129)))
        assert [len(half.all_contacts) for half in after(refused(), many).requests] == [64, 65]

    def test_if_the_first_half_is_taken_the_other_one_holds_the_refused_contact(self) -> None:
        searching = replace(request("ab"), deferred_half=request("cdef").contacts, deferred=request("gh").contacts)
        (half,) = after(answered("ab"), searching).requests
        assert (names(half), shown(half.deferred_half), shown(half.deferred)) == ("cd", "ef", "gh")
        (alone,) = after(answered("ab"), replace(searching, deferred_half=request("c").contacts)).requests
        assert (names(alone), alone.deferred_half, shown(alone.deferred)) == ("c", (), "gh")

    def test_if_it_is_refused_the_other_one_waits_for_the_end(self) -> None:
        searching = replace(request("abc"), deferred_half=request("def").contacts, deferred=request("gh").contacts)
        (half,) = after(refused(), searching).requests
        assert (names(half), shown(half.deferred_half), shown(half.deferred)) == ("a", "bc", "defgh")

    @pytest.mark.parametrize(
        "answer",
        [refused(), answered("a"), too_large(), not_found(), server_error(500)],
        ids=lambda one: type(one).__name__,
    )
    def test_when_the_search_has_ended_all_that_wait_are_asked_about_together(self, answer: Answer) -> None:
        alone = replace(
            request("a", key=BatchKey("v9", version_from_event=True)),
            deferred=request("bc").contacts,
            lone_failures=2,
            round_attempts=9,
        )
        (rest,) = after(answer, alone, last_2xx_at=NOW).requests
        assert names(rest) == "bc"

    @pytest.mark.parametrize("named", [(), ("a",), ("stranger",)])
    def test_refused_alone_it_is_a_suspect(self, named: tuple[str, ...]) -> None:
        decision = after(refused(*named), request("a"))
        assert [one.contact.contact_id for one in decision.suspects] == ["a"]
        assert not decision.requests
        assert not decision.outcomes

    def test_all_named_leaves_no_request(self) -> None:
        decision = after(refused("a", "b"), request("ab"))
        assert len(decision.suspects) == 2
        assert not decision.requests

    def test_halves_of_what_was_left_out_once_remember_it(self) -> None:
        assert all(
            half.retried_unanswered for half in after(refused(), request("ab", retried_unanswered=True)).requests
        )


class TestTooLarge:
    def test_413_halves(self) -> None:
        assert [names(half) for half in after(too_large()).requests] == ["ab", "cd"]

    def test_413_alone_is_too_large(self) -> None:
        decision = after(too_large(), request("a"))
        assert rejections(decision) == {"a": "too_large"}
        assert isinstance(decision.outcomes[0], Rejected)
        assert decision.outcomes[0].api_status == 413


class TestStops:
    @pytest.mark.parametrize("status", [401, 403])
    def test_forbidden_stops_and_loses_nothing(self, status: int) -> None:
        decision = after(forbidden(status))
        assert decision.fatal_error == forbidden(status).message
        assert [names(one) for one in decision.requests] == ["abcd"]
        assert not decision.outcomes

    def test_404_stops(self) -> None:
        decision = after(not_found(), request(key=BatchKey("1", version_from_event=False)))
        assert decision.fatal_error == not_found().message
        assert [names(one) for one in decision.requests] == ["abcd"]

    def test_404_for_the_events_own_version_rejects(self) -> None:
        decision = after(not_found(), request("ab", key=BatchKey("9", version_from_event=True)))
        assert decision.fatal_error is None
        assert rejections(decision) == {"a": "unknown_model_version", "b": "unknown_model_version"}


class TestUnavailable:
    @pytest.mark.parametrize("answer", UNAVAILABLE.values(), ids=UNAVAILABLE.keys())
    @pytest.mark.parametrize(("attempts", "delay_s"), [(1, 1.5), (2, 3.0), (3, 6.0)])
    def test_backs_off_up_to_max_retries(self, answer: Answer, attempts: int, delay_s: float) -> None:
        asked = request(attempts=attempts)
        decision = after(answer, asked)
        assert decision == Decision(requests=(asked.failed().again_at(NOW + delay_s),))

    @pytest.mark.parametrize("answer", [server_error(503, 77.0), rate_limited(77.0)])
    def test_retry_after_wins_over_the_formula(self, answer: Answer) -> None:
        (again,) = after(answer, max_backoff_s=5.0).requests
        assert again.not_before == NOW + 77.0
        assert again.batch_id == "asked"

    def test_a_retry_after_of_0_makes_no_burst(self) -> None:
        (again,) = after(server_error(503, 0.0), request(attempts=2)).requests
        assert again.not_before == NOW + 3.0

    @pytest.mark.parametrize("answer", UNAVAILABLE.values(), ids=UNAVAILABLE.keys())
    def test_then_it_holds_if_nobody_was_answered(self, answer: Answer) -> None:
        decision = after(answer, request(attempts=4), last_2xx_at=NOW - 60.0)
        assert decision.trip_reason == answer.message  # type: ignore[union-attr]
        assert not decision.outcomes
        (again,) = decision.requests
        assert (names(again), again.batch_id, again.round_attempts, again.attempts) == ("abcd", "asked", 0, 4)

    @pytest.mark.parametrize("kind", UNAVAILABLE)
    def test_then_a_batch_is_halved_if_others_were_answered(self, kind: str) -> None:
        decision = after(UNAVAILABLE[kind], request(attempts=4), last_2xx_at=OTHERS_WERE_ANSWERED)
        if kind in HOLD_AT_ONCE:
            assert decision.trip_reason is not None
            assert [names(one) for one in decision.requests] == ["abcd"]
        else:
            assert decision.trip_reason is None
            assert [names(half) for half in decision.requests] == ["ab", "cd"]

    def test_a_2xx_before_this_round_is_enough_to_halve_a_batch(self) -> None:
        assert len(after(server_error(), request(attempts=4), last_2xx_at=NOW - 30.0).requests) == 2

    def test_a_lone_contact_needs_the_2xx_in_its_round(self) -> None:
        decision = after(server_error(), request("a", attempts=4, lone_failures=2), last_2xx_at=NOW - 30.0)
        assert decision.trip_reason is not None
        assert decision.requests[0].lone_failures == 2

    @pytest.mark.parametrize("kind", sorted(set(UNAVAILABLE) - HOLD_AT_ONCE))
    def test_alone_it_is_refused_after_three_such_rounds(self, kind: str) -> None:
        asked = request("a", attempts=4)
        for failures in (1, 2):
            decision = after(UNAVAILABLE[kind], asked, last_2xx_at=OTHERS_WERE_ANSWERED)
            assert not decision.outcomes
            (again,) = decision.requests
            assert (again.lone_failures, again.round_attempts, again.round_since) == (failures, 0, None)
            asked = request("a", attempts=4, lone_failures=failures)
        decision = after(UNAVAILABLE[kind], asked, last_2xx_at=OTHERS_WERE_ANSWERED)
        assert rejections(decision) == {"a": "refused_by_api"}

    @pytest.mark.parametrize("kind", sorted(HOLD_AT_ONCE))
    def test_429_and_no_connection_and_no_token_never_reject(self, kind: str) -> None:
        asked = request("a", attempts=4, lone_failures=2)
        decision = after(UNAVAILABLE[kind], asked, last_2xx_at=OTHERS_WERE_ANSWERED)
        assert not decision.outcomes
        assert decision.trip_reason is not None

    def test_no_probe_before_retry_after(self) -> None:
        decision = after(rate_limited(300.0), request(attempts=4))
        assert decision.trip_until == NOW + 300.0
        assert decision.requests[0].not_before == NOW + 300.0

    @pytest.mark.parametrize("who", ["ab", "a"])
    def test_neither_halves_nor_another_round_before_retry_after(self, who: str) -> None:
        decision = after(server_error(503, 40.0), request(who, attempts=4), last_2xx_at=OTHERS_WERE_ANSWERED)
        assert decision.trip_reason is None
        assert {one.not_before for one in decision.requests} == {NOW + 40.0}

    def test_no_retries_where_none_are_set(self) -> None:
        assert after(server_error(), request(attempts=1), max_retries=0).trip_reason is not None


@pytest.mark.parametrize("status", [302, 402, 409, 451])
def test_what_nobody_foresaw_holds_and_names_the_status(status: int) -> None:
    decision = after(unexpected(status))
    assert decision.trip_reason is not None
    assert str(status) in decision.trip_reason
    assert [names(one) for one in decision.requests] == ["abcd"]
    assert not decision.outcomes
