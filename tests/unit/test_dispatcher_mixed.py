"""Troubles that meet: one contact hides nobody from the probes, and a clean end buys nothing again."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from support_core import answered, refused, server_error
from support_dispatcher import World, always, names, numbered, ok

if TYPE_CHECKING:
    from stream_scorer.core.events import Answer
    from stream_scorer.core.request import Request


def failing(poison: str, bad: str, *, first: int) -> object:
    """An API that refuses a request with ``bad`` and fails one with ``poison``; ``first``: what it looks at first."""
    looks = [(bad, refused()), (poison, server_error(500))]
    if first == 500:
        looks.reverse()

    def api(request: Request) -> Answer:
        return next((answer for name, answer in looks if name in names(request)), None) or ok(request)

    return api


class TestARefusedContactBesideAPoison:
    @pytest.mark.parametrize("first", [400, 500])
    @pytest.mark.parametrize(("poison", "bad"), [(0, 1), (1, 0), (0, 19), (19, 0), (10, 11), (11, 10), (18, 19)])
    def test_all_others_are_scored_and_both_are_found(self, poison: int, bad: int, first: int) -> None:
        world = World(failing(f"c{poison}", f"c{bad}", first=first))  # type: ignore[arg-type]
        world.feed(numbered(20))
        world.run(400.0, step_s=0.25)
        for one in numbered(4, "later"):  # where the witnesses were used up
            world.feed([one])
            world.run(60.0, step_s=0.25)
        world.finish()
        assert Counter(world.results.values()) == {"scored": 22, "refused_by_api": 2}
        assert {world.results[f"c{poison}"], world.results[f"c{bad}"]} == {"refused_by_api"}
        good = [sent for sent in world.sent if not {f"c{poison}", f"c{bad}"} & set(sent.names)]
        assert set(Counter(name for sent in good for name in sent.names).values()) == {1}, "nobody is bought twice"

    def test_the_others_do_not_wait_for_a_probe_each(self) -> None:
        world = World(failing("c0", "c1", first=400))  # type: ignore[arg-type]
        world.feed(numbered(1_000))
        world.run(120.0, step_s=0.25)
        assert Counter(world.results.values())["scored"] == 998


class TestContactsThatAreAlwaysLeftOut:
    @pytest.mark.parametrize("amount", [9, 10, 12, 40])
    def test_they_have_no_result_after_two_questions_however_many(self, amount: int) -> None:
        wanted = numbered(100)
        omitted = set(wanted[:amount])
        world = World(lambda request: answered([name for name in names(request) if name not in omitted]))
        world.feed(wanted)
        world.finish(within_s=10.0)
        assert {name for name, result in world.results.items() if result == "no_result"} == omitted
        assert {world.asked[name] for name in omitted} == {2}


class TestABrokenContract:
    def test_what_was_taken_apart_for_nothing_is_asked_about_in_full_batches_again(self) -> None:
        world = World(always(refused()))
        world.feed(numbered(1_000))
        world.run_until(lambda: world.breaker.open_state is not None)
        world.api = ok
        before = len(world.sent)
        world.finish()
        assert set(world.results.values()) == {"scored"}
        assert len(world.sent) - before <= 4

    def test_what_went_to_another_worker_meanwhile_is_not_bought_here(self) -> None:
        world = World(always(refused()))
        world.own(1)
        world.feed(numbered(500), 0)
        world.feed(numbered(500, "gone"), 1)
        world.run_until(lambda: world.breaker.open_state is not None)
        world.disown(1)
        world.api = ok
        before = len(world.sent)
        world.finish()
        assert not any(name.startswith("gone") for sent in world.sent[before:] for name in sent.names)
        assert not world.ledger._orphans


class TestTheCeiling:
    def test_what_a_probe_leaves_of_a_batch_may_be_larger_than_it(self) -> None:
        world = World(max_contacts=20, max_contacts_per_minute=15, max_retries=0, requests_per_minute=3)
        world.api = always(server_error(503))
        world.feed(["first"])
        world.run(5.0)
        world.feed(numbered(60))
        world.api = ok
        for _ in range(4_000):
            world.step(0.25)
            world.dispatcher.poll_timers()
        assert set(world.results.values()) == {"scored"}


class TestACleanEnd:
    def test_what_was_begun_is_finished_and_nothing_new_is_bought(self) -> None:
        world = World(lambda request: refused() if "c5" in names(request) else ok(request), max_contacts=100, slots=1)
        world.feed(numbered(100))
        world.step()
        world.step()
        world.step()
        world.feed(numbered(100, "later"))
        while world.dispatcher.in_flight or world.dispatcher.may_finish(world.now + 10.0):
            world.dispatcher.send(started_only=True)
            world.dispatcher.handle_responses()
            world.now += 0.05
        assert len(world.results) == 100
        assert not any(name.startswith("later") for name in world.results)

    def test_it_waits_for_a_retry_only_if_that_is_due_in_time(self) -> None:
        world = World(always(server_error(503, 8.0)))
        world.feed(["slow"])
        world.run(1.0)
        assert world.dispatcher.may_finish(world.now + 25.0)
        assert not world.dispatcher.may_finish(world.now + 5.0)

    def test_paid_answers_behind_a_contact_without_outcome_are_known(self) -> None:
        world = World(
            lambda request: server_error(503, 30.0) if "slow" in names(request) else ok(request), max_contacts=1
        )
        world.feed(["slow"])
        world.run(1.0)
        assert not world.ledger.has_paid_behind()
        world.feed(["quick"])
        world.run(1.0)
        assert world.ledger.has_paid_behind()
