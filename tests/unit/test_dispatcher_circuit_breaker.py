from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support_core import (
    answered,
    no_connection,
    rate_limited,
    refused,
    server_error,
    timed_out,
    unexpected,
)
from support_dispatcher import World, always, names, numbered, ok, poisoned, scripted

from stream_scorer.scoring.circuit_breaker import OpenReason

if TYPE_CHECKING:
    from stream_scorer.core.events import Answer
    from stream_scorer.core.request import Request


class TestHolding:
    @pytest.mark.parametrize("failure", [server_error(), rate_limited(), no_connection(), timed_out(), unexpected()])
    def test_an_outage_of_15_minutes_rejects_nobody(self, failure: Answer) -> None:
        world = World(always(failure), max_contacts=10)
        world.feed(numbered(35))
        world.run(900.0)
        assert not world.outcomes
        assert world.breaker.open_state is not None
        assert world.breaker.open_state.message == failure.message  # type: ignore[union-attr]
        world.api = ok
        world.finish(within_s=15.0)
        assert set(world.results.values()) == {"scored"}
        assert [hold is not None for hold in world.observed.holds] == [True, False]

    def test_the_reason_is_always_that_of_the_last_probe(self) -> None:
        answers = [no_connection(), server_error(503), server_error(503), answered([]), server_error(500)]
        world = World(scripted(*answers, then=ok), max_contacts=1, max_retries=0)
        world.feed(["a"])
        reasons = []
        while not world.results:
            world.step()
            if world.breaker.open_state is not None:
                reasons.append(world.breaker.open_state.message)
        left_out = "the API answers, but omits the contact of the probe"
        expected = [no_connection().message, server_error(503).message, left_out, server_error(500).message]  # type: ignore[union-attr]
        assert list(dict.fromkeys(reasons)) == expected
        assert [None if hold is None else hold.message for hold in world.observed.holds] == [*expected, None]

    def test_an_outage_during_a_broken_contract_is_named_and_then_the_contract_again(self) -> None:
        def api(_: Request) -> Answer:
            return server_error(503) if 20.0 < world.now - 1_000.0 < 60.0 else refused()

        world = World(api, max_contacts=1)
        world.feed(numbered(12))
        world.run(100.0)
        contract, outage, again = (hold.message for hold in world.observed.holds if hold is not None)
        assert contract == again
        assert contract.startswith("the API refuses every contact")
        assert outage == server_error(503).message  # type: ignore[union-attr]
        assert {hold.reason for hold in world.observed.holds if hold is not None} == {OpenReason.CONTRACT}

    def test_probes_are_one_contact_every_interval_and_nothing_else(self) -> None:
        world = World(always(no_connection()), max_contacts=10, max_retries=0)
        world.feed(numbered(10))
        world.run(65.0)
        probes = world.probes()
        assert [len(probe.names) for probe in probes] == [1] * 6
        assert [b.at - a.at for a, b in itertools.pairwise(probes)] == pytest.approx([10.1] * 5, abs=0.1)

    def test_the_answer_of_the_probe_is_used(self) -> None:
        world = World(scripted(*[no_connection()] * 4), max_contacts=3)
        world.feed("abc")
        world.finish()
        assert [sent.names for sent in world.sent[-2:]] == [["a"], ["b", "c"]]
        assert set(world.results.values()) == {"scored"}
        assert world.sent[-2].request.batch_id != world.sent[-1].request.batch_id

    @pytest.mark.parametrize("failure", [server_error(503, 45.0), rate_limited(45.0)])
    def test_never_a_probe_before_retry_after(self, failure: Answer) -> None:
        world = World(always(failure), max_contacts=5)
        world.feed(numbered(5))
        world.run(500.0)
        times = world.times()
        assert len(times) > 6
        assert all(later - earlier >= 45.0 for earlier, later in itertools.pairwise(times))

    def test_retry_after_of_another_request_counts_too(self) -> None:
        """One request fails for good while another was told to come back much later."""
        world = World(
            lambda request: server_error(503, 300.0) if "a" in names(request) else timed_out(), max_contacts=1
        )
        world.feed("ab")
        world.run(290.0)
        assert world.breaker.open_state
        assert not [sent for sent in world.sent if sent.at > 1_030.0]
        world.api = ok
        world.finish(within_s=30.0)

    def test_a_retry_after_that_comes_during_a_hold_puts_its_probe_off(self) -> None:
        world = World(max_contacts=1)

        def api(request: Request) -> Answer:
            world.latency_s = 5.0 if "b" in names(request) else 0.1
            return server_error(503, 100.0) if "b" in names(request) else unexpected()

        world.api = api
        world.feed("ab")
        world.run(104.0)
        assert len(world.sent) == 2
        world.run(5.0)
        assert len(world.sent) == 3

    def test_a_2xx_since_makes_an_older_retry_after_one_requests_own(self) -> None:
        world = World(scripted(server_error(503, 3_600.0)), max_contacts=1)
        world.feed("ab")
        world.run(1.0)
        assert world.results == {"b": "scored"}
        world.api = scripted(unexpected())
        world.feed("c")
        world.run(15.0)
        assert world.results == {"b": "scored", "c": "scored"}

    def test_a_retry_after_is_kept_when_a_hold_ends_before_it(self) -> None:
        """A 2xx ends the hold; who was told to wait on his own waits on."""
        recorder = server_error(503, 200.0)
        world = World(lambda request: recorder if "a" in names(request) else ok(request), max_contacts=1)
        world.feed("a")
        world.run(1.0)
        world.api = lambda request: recorder if "a" in names(request) else unexpected()
        world.feed("b")
        world.run(1.0)
        assert world.breaker.open_state is not None
        world.api = ok
        world.finish()
        assert all(not 1_000.5 < sent.at < 1_199.0 for sent in world.sent if sent.names == ["a"])

    def test_the_next_probe_of_a_request_tries_its_next_contact(self) -> None:
        world = World(always(timed_out()), max_contacts=3, max_retries=0)
        world.feed("abc")
        world.run(45.0)
        assert [probe.names for probe in world.probes()][:4] == [["a"], ["b"], ["c"], ["a"]]

    @pytest.mark.parametrize("bisecting", [True, False])
    def test_a_poisonous_contact_does_not_keep_the_probes_to_itself(self, *, bisecting: bool) -> None:
        """It fails alone and nobody else was answered: that looks like an outage, until another contact is tried."""
        world = World(poisoned("bad"), max_contacts=1, max_retries=0)
        world.feed(["bad"])
        world.run_until(lambda: world.breaker.open_state is not None)
        if bisecting:
            request = world.dispatcher._queue._waiting.pop()
            world.dispatcher._queue.put(replace(request, bisecting=True))
        world.feed(["good"])
        world.run_until(lambda: "good" in world.results, within_s=25.0)
        assert world.breaker.open_state is None

    def test_more_is_wanted_once_every_waiting_contact_has_failed_as_a_probe(self) -> None:
        world = World(poisoned("bad"), max_contacts=1, max_retries=0)
        world.feed(["bad"])
        assert not world.dispatcher.all_probed
        world.run_until(lambda: world.breaker.open_state is not None)
        assert not world.dispatcher.all_probed
        world.run_until(lambda: world.dispatcher.all_probed, within_s=15.0)
        world.feed(["good"])
        assert not world.dispatcher.all_probed
        world.run_until(lambda: "good" in world.results, within_s=15.0)

    def test_more_is_wanted_where_nothing_waits(self) -> None:
        world = World(always(timed_out()), max_contacts=1, max_retries=0)
        world.feed("a")
        world.run_until(lambda: world.breaker.open_state is not None)
        world.disown(0)
        world.run(11.0)
        assert world.dispatcher.all_probed

    def test_a_probe_that_is_left_out_proves_nothing(self) -> None:
        """A 2xx that leaves everybody out is an outage in disguise; asking about one alone must not reject him."""
        world = World(lambda _: answered([]), max_contacts=20)
        world.feed(numbered(20))
        world.run(300.0)
        assert not world.outcomes
        assert world.breaker.open_state is not None
        world.api = ok
        world.finish(within_s=15.0)
        assert set(world.results.values()) == {"scored"}

    def test_a_poisonous_contact_is_found_and_rejected_while_others_are_answered(self) -> None:
        world = World(poisoned("c3"), max_contacts=8)
        world.feed(numbered(8))
        for number in range(60):
            world.feed(numbered(8, "x" + "y" * number))
            world.run(5.0)
        world.finish()
        assert {name: reason for name, reason in world.results.items() if reason != "scored"} == {
            "c3": "refused_by_api"
        }

    def test_after_a_hold_every_request_has_all_its_attempts_again(self) -> None:
        world = World(always(timed_out()), max_contacts=1)
        world.feed(["first"])
        world.run(4.0)
        world.feed(["second"])
        world.run_until(lambda: world.breaker.open_state is not None)
        assert world.asked["second"] > 1, "some of its attempts are used up"
        world.api = poisoned("second", answer=timed_out())
        world.run_until(lambda: "first" in world.results)
        world.api = scripted(*[timed_out()] * 3)
        world.finish()
        last = world.sent[-1].request
        assert (last.round_attempts, last.lone_failures) == (4, 0), "the hold's end is no proof against it"

    def test_a_probe_waits_for_its_answer(self) -> None:
        world = World(always(no_connection()), max_contacts=2, max_retries=0)
        world.feed("ab")
        world.run_until(lambda: world.breaker.open_state is not None)
        world.latency_s = 35.0
        world.run(40.0)
        assert len(world.probes()) == 1
        assert world.dispatcher.waiting == 1
