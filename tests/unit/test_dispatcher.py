from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from dispatcher_harness import DispatcherHarness, always, names, numbered, ok, scripted
from support_core import (
    answered,
    contact,
    forbidden,
    no_connection,
    not_found,
    rate_limited,
    refused,
    server_error,
)

from stream_scorer.core.records import Partition
from stream_scorer.core.scoring.api_response import RateLimitHeaders
from stream_scorer.core.scoring.batcher import BatchKey
from stream_scorer.core.scoring.request import Request
from stream_scorer.scoring.wait_reasons import WaitReason

if TYPE_CHECKING:
    from stream_scorer.core.scoring.api_response import ApiResponse

P0 = Partition("contact-features", 0)
P1 = Partition("contact-features", 1)
OWN = BatchKey(None, version_from_event=False)


class TestSending:
    def test_a_lone_contact_goes_out_once_it_has_lingered(self) -> None:
        world = DispatcherHarness()
        world.feed(["a"])
        world.run(0.1)
        assert not world.sent
        world.finish()
        assert world.results == {"a": "scored"}
        assert 0.2 <= world.sent[0].at - 1_000.0 <= 0.3

    def test_full_batches_do_not_linger(self) -> None:
        world = DispatcherHarness(max_contacts=2)
        world.feed("abcd")
        world.step()
        assert [sent.names for sent in world.sent] == [["a", "b"], ["c", "d"]]

    def test_no_more_at_once_than_slots(self) -> None:
        world = DispatcherHarness(max_contacts=1, slots=3, latency_s=1.0)
        world.feed(numbered(10))
        world.run(0.9)
        contacts = sum(len(sent.names) for sent in world.sent)
        assert (world.dispatcher.in_flight, contacts, len(world.sent)) == (3, 3, 3)
        world.finish()
        assert len(world.sent) == 10

    def test_the_own_quota_is_kept(self) -> None:
        world = DispatcherHarness(max_contacts=1, requests_per_minute=30)
        world.feed(numbered(40))
        world.run(59.0)
        assert len(world.sent) == 30
        assert world.quota.remaining(world.now) == 0
        assert world.dispatcher.wait_reason(world.now) is WaitReason.OWN_QUOTA
        world.finish()
        assert len(world.sent) == 40

    def test_rate_limit_headers_of_the_api_are_applied(self) -> None:
        world = DispatcherHarness(
            lambda request: answered(names(request), RateLimitHeaders(100, 100, 30.0)), max_contacts=1, slots=1
        )
        world.feed("ab")
        world.run(29.0)
        assert len(world.sent) == 1
        assert world.dispatcher.wait_reason(world.now) is WaitReason.SERVER_QUOTA
        world.finish()

    def test_answers_without_a_reading_are_no_longer_under_way(self) -> None:
        reading = RateLimitHeaders(1, 5, 60.0)
        world = DispatcherHarness(scripted(answered(["c0"], reading)), max_contacts=1, slots=1)
        world.feed(numbered(4))
        world.finish(within_s=2.0)
        assert world.quota.remaining(world.now) == 4, "three unanswered ones would leave 1"

    def test_a_trickle_does_not_burn_the_quota(self) -> None:
        world = DispatcherHarness()
        for number in range(600):
            world.feed([f"c{number}"])
            world.run(0.2)
        world.finish()
        assert 90 <= len(world.sent) <= 140, "about one a second, though a contact has lingered after 0.2 s"

    def test_no_wait_reason_while_everything_goes_out(self) -> None:
        world = DispatcherHarness()
        assert world.dispatcher.wait_reason(world.now) is None
        world.feed(["a"])
        assert world.dispatcher.wait_reason(world.now) is None


class TestRetrying:
    def test_due_times_follow_the_formula(self) -> None:
        world = DispatcherHarness(scripted(*[server_error()] * 3))
        world.feed(["a"])
        world.finish()
        assert world.times() == pytest.approx([0.0, 1.65, 4.75, 10.9], abs=0.4)
        assert {sent.request.batch_id for sent in world.sent} == {"batch-1"}
        assert world.results == {"a": "scored"}

    def test_unknown_results_are_counted(self) -> None:
        world = DispatcherHarness(lambda request: answered([*names(request), "stranger"]))
        world.feed("a")
        world.finish()
        assert world.observed.unmatched == 1

    def test_retry_after_of_a_429_stops_everything(self) -> None:
        world = DispatcherHarness(scripted(rate_limited(100.0)), max_contacts=1, slots=1)
        world.feed("ab")
        world.run(99.0)
        assert len(world.sent) == 1
        assert world.dispatcher.wait_reason(world.now) is WaitReason.RETRY_AFTER
        world.finish()
        assert world.asked == {"a": 2, "b": 1}

    def test_a_429_is_never_a_failure_of_a_contact(self) -> None:
        world = DispatcherHarness(always(rate_limited()))
        world.feed(["a"])
        world.run(900.0, step_s=0.5)
        assert world.breaker.open_state is None
        assert not world.deferrals
        gaps = [later - earlier for earlier, later in itertools.pairwise(world.times())]
        assert gaps[-1] == pytest.approx(45.0, abs=1.0), "its own backoff"
        world.api = ok
        world.finish()
        assert world.results == {"a": "scored"}


class TestRetryAfter:
    def test_it_delays_its_own_request_only(self) -> None:
        world = DispatcherHarness(scripted(server_error(503, 100.0)), max_contacts=1)
        world.feed("ab")
        world.run(5.0)
        assert world.results == {"b": "scored"}
        world.finish()
        assert world.times()[2] == pytest.approx(100.1, abs=0.15)

    def test_the_ordinary_backoff_counts_once_a_request_sent_later_has_succeeded(self) -> None:
        world = DispatcherHarness(scripted(server_error(503, 100.0)), max_contacts=1)
        world.feed("a")
        world.run(1.0)
        world.feed("b")
        world.finish(within_s=3.0)
        assert world.asked == {"a": 2, "b": 1}

    def test_fifteen_minutes_at_most(self) -> None:
        world = DispatcherHarness(scripted(server_error(503, 80_000.0)), max_contacts=1)
        world.feed("a")
        world.finish(within_s=1_000.0, step_s=0.25)
        assert world.times()[1] == pytest.approx(900.1, abs=0.5)


class TestPartialAnswers:
    def test_valid_results_are_kept_however_many_are_missing(self) -> None:
        """Of each answer a tenth: all of it is published, and no contact is bought three times."""
        world = DispatcherHarness()
        world.feed(numbered(10))
        world.finish()
        missing = True
        world.api = lambda request: answered(
            [one for one in names(request) if not missing or one[-1] == "7" or one < "d"]
        )
        world.feed(numbered(500, "d"))
        world.settle(within_s=10.0)
        assert Counter(world.results.values())["scored"] == 10 + 50
        assert Counter(one.rounds for one in world.deferrals) == {1: 450}
        assert {world.asked[one.contact_id] for one in world.deferrals} == {2}
        missing = False
        world.finish()
        assert set(world.results.values()) == {"scored"}
        assert sum(len(sent.names) for sent in world.sent) <= 10 + 500 + 450 + 450 + 20

    def test_one_that_is_always_missing_is_sent_twice_and_once_a_round_and_then_has_no_result(self) -> None:
        world = DispatcherHarness(lambda request: answered([name for name in names(request) if name != "b"]))
        world.feed("abc")
        world.finish(within_s=6_000.0)
        assert world.results == {"a": "scored", "b": "no_result", "c": "scored"}
        assert [one.rounds for one in world.deferrals] == [1, 2, 3]
        assert world.asked["b"] == 2 + 1 + 1 + 1 + 3

    def test_an_answer_without_any_result_is_sent_once_more_and_then_deferred_without_division(self) -> None:
        world = DispatcherHarness()
        world.feed(["good"])
        world.finish()
        world.api = lambda request: answered([one for one in names(request) if one == "good"])
        world.feed(numbered(50))
        world.settle(within_s=10.0)
        assert {world.asked[one] for one in numbered(50)} == {2}
        assert [one.rounds for one in world.deferrals] == [1] * 50
        assert world.observed.controls >= 1
        assert world.breaker.open_state is None


class TestOwnership:
    def test_what_waits_is_not_asked_after_its_partition_went(self) -> None:
        world = DispatcherHarness(scripted(server_error(503, 30.0)), max_contacts=4)
        world.own(1)
        world.produce("ab", 0)
        world.produce("cd", 1)
        world.read(0)
        world.read(1)
        world.run(5.0)
        world.disown(0)
        world.run(60.0)
        assert [sent.names for sent in world.sent] == [["a", "b", "c", "d"], ["c", "d"]]
        assert not world.ledger._orphans

    def test_neither_what_the_batcher_holds(self) -> None:
        world = DispatcherHarness()
        world.feed("ab")
        world.disown(0)
        world.run(10.0)
        assert not world.sent

    def test_nor_what_an_open_breaker_keeps_back(self) -> None:
        world = DispatcherHarness(always(no_connection()), max_contacts=4, max_retries=0)
        world.feed("abcd")
        world.run_until(lambda: world.breaker.open_state is not None)
        world.disown(0)
        world.run(1.0)
        sent = len(world.sent)
        world.run(60.0)
        assert len(world.sent) == sent
        assert not world.ledger._orphans

    def test_nor_a_probe_that_fails_after_its_partition_went(self) -> None:
        world = DispatcherHarness(always(no_connection()), max_contacts=4, max_retries=0, latency_s=5.0)
        world.feed("abcd")
        world.run_until(lambda: len(world.sent) == 3)
        assert world.dispatcher.in_flight
        world.disown(0)
        world.run(60.0)
        assert len(world.sent) == 3
        assert not world.ledger._orphans
        assert world.dispatcher.batched == 0

    def test_nor_a_failure_that_waits_for_its_evidence(self) -> None:
        world = DispatcherHarness(scripted(refused(), refused()), max_contacts=1)
        world.feed(["bad"])
        world.run(5.0)
        assert world.dispatcher.waiting == 1, "there is no other contact"
        world.disown(0)
        world.run(5.0)
        assert (world.dispatcher.waiting, len(world.sent)) == (0, 1)
        assert not world.ledger._orphans

    def test_an_answer_under_way_is_used_for_the_record_read_again(self) -> None:
        world = DispatcherHarness(latency_s=5.0)
        world.feed("ab")
        world.run(1.0)
        world.disown(0)
        world.run(1.0)
        world.own(0)
        world.read(0)
        world.finish()
        assert world.asked == {"a": 1, "b": 1}

    def test_an_answer_that_came_meanwhile_is_used(self) -> None:
        world = DispatcherHarness(latency_s=1.0)
        world.feed("ab")
        world.run(0.5)
        world.disown(0)
        world.run(5.0)
        world.own(0)
        world.read(0)
        assert set(world.results.values()) == {"scored"}
        assert world.asked == {"a": 1, "b": 1}

    def test_a_retry_is_taken_over_by_the_record_read_again(self) -> None:
        world = DispatcherHarness(scripted(server_error(503, 20.0)))
        world.feed("ab")
        world.run(5.0)
        world.disown(0)
        world.own(0)
        world.read(0)
        world.finish()
        assert world.asked == {"a": 2, "b": 2}

    def test_a_failure_that_waits_for_its_evidence_outlives_the_ownership_too(self) -> None:
        world = DispatcherHarness(scripted(refused()))
        world.feed("a")
        world.run(10.0)
        world.disown(0)
        world.own(0)
        world.read(0)
        world.feed("b")
        world.settle()
        assert world.results == {"b": "scored"}
        assert [one.contact_id for one in world.deferrals] == ["a"]
        assert world.asked["a"] == 1

    def test_requested_records_are_those_in_flight_or_waiting_for_a_retry(self) -> None:
        world = DispatcherHarness(
            lambda request: refused() if "a" in names(request) else server_error(503, 60.0),
            max_contacts=1,
            latency_s=1.0,
        )
        world.own(1)
        suspect, retry = world.feed("ab", 0)
        world.feed("c", 1)
        world.run(3.0)
        under_way = world.feed("d", 0)
        world.run(0.5)
        world.feed("e", 0)[0]
        asked = sorted(one.offset for one in world.dispatcher.requested_records(P0))
        assert asked == [suspect.offset, retry.offset, under_way[0].offset]
        assert world.dispatcher.has_in_flight({P0})
        assert not world.dispatcher.has_in_flight({P1})


class TestStopping:
    """Only the platform's own refusal ends the process, and only before its first result."""

    @pytest.mark.parametrize("answer", [forbidden(401), forbidden(403), not_found()])
    def test_nothing_is_sent_any_more_and_what_is_under_way_is_finished(self, answer: ApiResponse) -> None:
        world = DispatcherHarness(scripted(answer), max_contacts=1, slots=2)
        world.feed(numbered(10))
        world.run(10.0)
        assert world.dispatcher.fatal_error == answer.message  # type: ignore[union-attr]
        assert world.results == {"c1": "scored"}
        assert len(world.sent) == 2

    def test_the_first_reason_stays(self) -> None:
        world = DispatcherHarness(scripted(forbidden(403), not_found()), max_contacts=1)
        world.feed("ab")
        world.run(10.0)
        assert world.dispatcher.fatal_error == forbidden(403).message

    def test_a_probe_may_stop_it_too(self) -> None:
        world = DispatcherHarness(scripted(*[no_connection()], then=always(forbidden(403))), max_retries=0)
        world.feed("ab")
        world.run(60.0)
        assert world.dispatcher.fatal_error == forbidden(403).message
        assert len(world.sent) == 2
        assert not world.results

    @pytest.mark.parametrize("answer", [forbidden(401), forbidden(403), not_found()])
    def test_after_a_result_the_breaker_opens_instead(self, answer: ApiResponse) -> None:
        world = DispatcherHarness(scripted(ok(Request("", OWN, (contact("first"),))), then=always(answer)))
        world.feed(["first"])
        world.finish()
        world.feed(numbered(20))
        world.run(60.0)
        assert world.dispatcher.fatal_error is None
        assert world.breaker.open_state is not None
        assert world.breaker.open_state.message == answer.message  # type: ignore[union-attr]
        world.api = ok
        world.finish(within_s=30.0)
        assert set(world.results.values()) == {"scored"}

    @pytest.mark.parametrize("answer", [forbidden(403, platform_error=False), not_found(platform_error=False)])
    def test_an_answer_of_a_gateway_does_not_stop_it(self, answer: ApiResponse) -> None:
        world = DispatcherHarness(always(answer))
        world.feed(numbered(20))
        world.run(60.0)
        assert world.dispatcher.fatal_error is None
        assert world.breaker.open_state is not None
        assert not world.outcomes


class TestBudget:
    def test_nothing_is_sent_until_it_fits(self) -> None:
        world = DispatcherHarness(max_contacts=10, max_contacts_per_minute=25)
        world.feed(numbered(40))
        world.run(59.0)
        assert sum(len(sent.names) for sent in world.sent) == 20
        assert world.dispatcher.wait_reason(world.now) is WaitReason.SPEND_LIMIT
        assert world.dispatcher.waiting == 1
        world.finish()
        assert world.times() == pytest.approx([0.0, 0.0, 60.0, 60.0], abs=0.1)
        assert world.dispatcher.wait_reason(world.now) is None

    def test_a_batch_larger_than_the_ceiling_is_split(self) -> None:
        world = DispatcherHarness(max_contacts=10, max_contacts_per_minute=4)
        world.feed(numbered(10))
        world.finish()
        assert [sent.names for sent in world.sent] == [numbered(10)[:4], numbered(10)[4:8], numbered(10)[8:]]
        assert world.times() == pytest.approx([0.0, 60.0, 120.0], abs=0.1)
        assert len({sent.request.batch_id for sent in world.sent}) == 3
        assert not any(sent.request.bisecting for sent in world.sent)

    def test_nothing_smaller_overtakes(self) -> None:
        world = DispatcherHarness(max_contacts=10, max_contacts_per_minute=15)
        world.feed(numbered(20))
        world.feed(["small"], version="2")
        world.run(55.0)
        assert len(world.sent) == 1
        world.finish()
        assert world.sent[1].names == numbered(20)[10:]

    def test_retries_and_probes_count(self) -> None:
        world = DispatcherHarness(always(server_error()), max_contacts=5, max_contacts_per_minute=7, max_retries=1)
        world.feed(numbered(5))
        world.run(600.0, step_s=0.25)
        for start, _ in world.sent:
            assert sum(len(sent.names) for sent in world.sent if start <= sent.at < start + 60.0) <= 7
        assert world.breaker.open_state is not None
        assert world.dispatcher.wait_reason(world.now) is WaitReason.CIRCUIT_OPEN, "it explains more"
        world.api = ok
        world.finish()
        assert set(world.results.values()) == {"scored"}

    def test_the_quota_is_named_first(self) -> None:
        world = DispatcherHarness(scripted(rate_limited(30.0)), max_contacts=10, max_contacts_per_minute=10, slots=2)
        world.feed(numbered(20))
        world.run(20.0)
        assert world.dispatcher.wait_reason(world.now) is WaitReason.RETRY_AFTER
        world.run(20.0)
        assert world.dispatcher.wait_reason(world.now) is WaitReason.SPEND_LIMIT

    def test_what_the_budget_keeps_back_is_not_asked_after_its_partition_went(self) -> None:
        world = DispatcherHarness(max_contacts=10, max_contacts_per_minute=10)
        world.feed(numbered(20))
        world.run(5.0)
        world.disown(0)
        world.run(120.0)
        assert len(world.sent) == 1
