from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from support_core import (
    refused,
    timed_out,
    too_large,
)
from support_dispatcher import World, always, names, numbered, ok, poisoned, scripted

if TYPE_CHECKING:
    from stream_scorer.core.events import Answer
    from stream_scorer.core.request import Request


class TestRefused:
    def test_named_contacts_are_rejected_and_the_others_scored(self) -> None:
        def api(request: Request) -> Answer:
            bad = {"b", "d"} & set(names(request))
            return refused(*bad) if bad else ok(request)

        world = World(api)
        world.feed("abcde")
        world.finish(within_s=5.0)
        assert world.results == dict.fromkeys("ace", "scored") | dict.fromkeys("bd", "refused_by_api")
        assert len(world.sent) == 2

    def test_unnamed_it_is_found_by_halving(self) -> None:
        world = World(poisoned("c13", answer=refused()), max_contacts=64)
        world.feed(numbered(64))
        world.finish(within_s=20.0)
        assert [name for name, reason in world.results.items() if reason != "scored"] == ["c13"]
        assert len(world.sent) == 9  # the batch, six first halves, the contact alone, and all that were not asked about

    def test_too_large_is_halved(self) -> None:
        world = World(lambda request: too_large() if len(request.contacts) > 2 else ok(request))
        world.feed(numbered(8))
        world.finish()
        assert set(world.results.values()) == {"scored"}
        assert len(world.sent) == 7

    def test_without_a_2xx_of_its_version_it_waits_60_s(self) -> None:
        world = World(lambda request: refused() if request.key.model_version == "1" else ok(request))
        world.feed(["bad"], version="1")
        world.feed(["good"], version="2")
        world.run(55.0)
        assert world.results == {"good": "scored"}
        world.run(10.0)
        assert world.results == {"good": "scored", "bad": "refused_by_api"}

    def test_a_2xx_of_its_version_decides_at_once_whoever_brought_the_version(self) -> None:
        world = World(poisoned("bad", answer=refused()), max_contacts=1)
        world.feed(["bad"], version="1", from_event=True)
        world.run(5.0)
        assert not world.results
        world.feed(["good"], version="1", from_event=False)
        world.run(1.0)
        assert world.results == {"good": "scored", "bad": "refused_by_api"}

    def test_a_2xx_counts_for_ten_minutes(self) -> None:
        world = World(poisoned("bad", "worse", answer=refused()), max_contacts=1)
        world.feed(["good"])
        world.finish()
        world.now += 590.0
        world.feed(["bad"])
        world.run(1.0)
        assert world.results["bad"] == "refused_by_api"
        world.now += 20.0
        world.feed(["worse"])
        world.run(50.0)
        assert "worse" not in world.results

    def test_ten_minutes_are_counted_for_each_version(self) -> None:
        world = World(poisoned("bad", answer=refused()), max_contacts=1)
        for name, version, pause_s in (("a", "1", 10.0), ("b", "2", 580.0), ("c", "1", 50.0)):
            world.feed([name], version=version)
            world.run(5.0)
            world.now += pause_s
        world.feed(["bad"], version="2")
        world.run(50.0)
        assert "bad" not in world.results

    def test_while_the_api_is_down_its_minute_does_not_end(self) -> None:
        world = World(scripted(refused(), then=always(timed_out())), max_contacts=1, max_retries=0)
        world.feed(["bad", "good"])
        world.run(300.0)
        assert world.breaker.open_state is not None
        assert not world.outcomes
        world.api = ok
        world.finish(within_s=15.0)
        assert world.results == {"bad": "refused_by_api", "good": "scored"}

    def test_more_than_eight_waiting_is_a_broken_contract(self) -> None:
        world = World(always(refused()), max_contacts=16)
        world.feed(numbered(40))
        world.run(900.0)
        assert not world.outcomes
        hold = world.breaker.open_state
        assert hold is not None
        assert hold.broken_contract
        assert "refuses every contact" in hold.message
        assert len([sent for sent in world.sent if sent.at > hold.since + 1.0]) <= 90, "a probe every 10 s"
        world.api = ok
        world.finish(within_s=30.0)
        assert set(world.results.values()) == {"scored"}

    def test_nine_bad_contacts_first_are_no_broken_contract_for_long(self) -> None:
        """A probe at once shows that others are accepted; then the nine are rejected."""
        bad = numbered(9, "bad")
        world = World(poisoned(*bad, answer=refused()), max_contacts=9, slots=1)
        world.feed(bad)
        world.feed(numbered(9, "good"))
        world.finish(within_s=30.0)
        assert world.results == dict.fromkeys(bad, "refused_by_api") | dict.fromkeys(numbered(9, "good"), "scored")

    def test_isolation_takes_at_most_every_other_turn(self) -> None:
        bad = numbered(16, "bad")
        world = World(poisoned(*bad, answer=refused()), max_contacts=16, slots=1, requests_per_minute=60)
        world.feed(["good"])
        world.finish()
        world.feed(bad)
        world.feed(numbered(16 * 40))
        world.run(50.0)
        others_wait = [sent for sent in world.sent[2:] if world.batcher.has_full]
        bisecting = [sent.request.bisecting for sent in others_wait]
        assert sum(bisecting) > 15
        assert not any(one and other for one, other in itertools.pairwise(bisecting))

    def test_isolation_takes_every_turn_when_nobody_else_waits(self) -> None:
        world = World(poisoned("c5", answer=refused()), max_contacts=32)
        world.feed(numbered(32))
        world.finish(within_s=5.0)
