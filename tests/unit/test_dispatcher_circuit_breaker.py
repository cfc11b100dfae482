"""An outage of the API or of one model version: no contact is rejected, and little is bought twice."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from dispatcher_harness import DispatcherHarness, always, names, numbered, ok, poisoned, scripted
from support_core import (
    answered,
    cut_off,
    forbidden,
    malformed,
    no_connection,
    no_token,
    not_found,
    rate_limited,
    refused,
    server_error,
    timed_out,
    too_large,
    unexpected,
)

from stream_scorer.scoring.circuit_breaker import OpenReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.scoring.api_response import ApiResponse
    from stream_scorer.core.scoring.request import Request

OUTAGES: dict[str, Callable[[Request], ApiResponse]] = {
    "400": always(refused()),
    "400 that names all": lambda request: refused(*names(request)),
    "422": always(refused(status=422)),
    "404": always(not_found()),
    "404 of a gateway": always(not_found(platform_error=False)),
    "403": always(forbidden()),
    "401": always(forbidden(401)),
    "413": always(too_large()),
    "302": always(unexpected(302)),
    "409": always(unexpected(409)),
    "empty 2xx": always(answered([])),
    "results of others": always(answered(["x"])),
    "500": always(server_error(500)),
    "503": always(server_error(503)),
    "no JSON": always(malformed()),
    "time-out": always(timed_out()),
    "cut off": always(cut_off()),
    "no connection": always(no_connection()),
    "no token": always(no_token()),
}
# Before the first result these end the process.
FATAL_AT_FIRST = ("401", "403", "404")


def running(contacts: int = 50, **more: int) -> DispatcherHarness:
    """A world whose API has answered for some contacts already."""
    world = DispatcherHarness(**more)  # type: ignore[arg-type]
    world.feed(numbered(contacts, "before"))
    world.finish()
    return world


def billed(world: DispatcherHarness, since: float) -> int:
    return sum(len(sent.names) for sent in world.sent if sent.at >= since)


class TestAnOutage:
    @pytest.mark.parametrize(
        ("way", "is_running"),
        [(way, True) for way in OUTAGES] + [(way, False) for way in OUTAGES if way not in FATAL_AT_FIRST],
    )
    def test_of_ten_minutes_rejects_and_defers_no_contact_and_buys_little_twice(
        self, way: str, *, is_running: bool
    ) -> None:
        world = running(max_contacts=50) if is_running else DispatcherHarness(max_contacts=50)
        world.api = OUTAGES[way]
        began = world.now
        world.feed(numbered(800))
        world.run(15.0)
        assert world.breaker.open_state is not None
        after_15_s = billed(world, began)
        assert after_15_s <= 4 * 8 * 50, "each of the requests in flight, once more, and its halves"
        world.run(585.0, step_s=0.5)
        probes = billed(world, began) - after_15_s
        assert probes <= 60
        assert len(world.observed.opened) == 1
        world.api, ended = ok, world.now
        world.finish(within_s=30.0)
        assert set(world.results.values()) == {"scored"}
        assert not world.deferrals
        assert billed(world, ended) <= 800 + 2, "one probe, and at most one control"
        requests = len([sent for sent in world.sent if sent.at >= ended])
        assert requests <= 16 + 12, "the steps of the half-open breaker, then full ones"

    def test_of_429_is_a_pause_and_opens_nothing(self) -> None:
        world = running(max_contacts=50)
        world.api = always(rate_limited())
        world.feed(numbered(200))
        world.run(300.0, step_s=0.5)
        assert not world.observed.opened
        world.api = ok
        world.finish()
        assert set(world.results.values()) == {"scored"}
        assert not world.deferrals

    def test_is_noticed_after_eight_failures_in_a_row(self) -> None:
        world = running(max_contacts=50)
        world.api, began = always(server_error(503)), world.now
        world.feed(numbered(800))
        world.run(0.6)
        assert world.breaker.open_state is not None
        assert len([sent for sent in world.sent if sent.at >= began]) <= 8 + 2 + 8, "two of them controls"

    def test_the_reported_reason_is_that_of_the_last_probe(self) -> None:
        world = running()
        answers = [no_connection(), server_error(500), refused(), unexpected(409)]
        world.api = scripted(*[no_connection()] * 6, *[server_error(500)] * 2, refused(), unexpected(409))
        world.feed(["a", "b", "c"])
        world.finish(within_s=120.0)
        messages = [answer.message for answer in answers]  # type: ignore[union-attr]
        assert [None if state is None else state.message for state in world.observed.states] == [*messages, None]
        assert {state.reason for state in world.observed.opened} == {OpenReason.API}

    @pytest.mark.parametrize("way", OUTAGES)
    def test_of_15_s_in_mid_stream_costs_no_contact(self, way: str) -> None:
        world = running(max_contacts=50)
        wanted = iter(numbered(1_200))
        for second in range(60):
            world.api = OUTAGES[way] if 10 <= second < 25 else ok
            world.feed(itertools.islice(wanted, 20))
            world.run(1.0)
        world.finish(within_s=9_000.0)
        assert set(world.results.values()) == {"scored"}
        assert len(world.results) == 50 + 1_200

    @pytest.mark.parametrize("way", ["400", "404", "404 of a gateway", "503", "empty 2xx"])
    def test_each_of_half_of_its_answers_for_ten_minutes_costs_no_contact(self, way: str) -> None:
        world = running(max_contacts=50)
        calls = itertools.count()
        world.api = lambda request: OUTAGES[way](request) if next(calls) % 2 else ok(request)
        for times in range(120):
            world.feed(numbered(50, "c" + "x" * times))
            world.run(5.0)
        world.api = ok
        world.finish(within_s=9_000.0)
        assert set(world.results.values()) == {"scored"}
        assert len(world.results) == 50 + 120 * 50

    @pytest.mark.parametrize("seed", range(5))
    def test_of_30_percent_of_503_on_a_stream_of_one_contact_a_second_costs_none(self, seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 - repeatable
        world = running()
        world.api = lambda request: server_error(503) if dice.random() < 0.3 else ok(request)
        for name in numbered(600):
            world.feed([name])
            world.run(1.0)
        world.finish(within_s=9_000.0)
        assert set(world.results.values()) == {"scored"}
        assert len(world.results) == 50 + 600


class TestProbes:
    def test_are_one_contact_every_interval_a_different_one_each_time_and_nothing_else(self) -> None:
        world = DispatcherHarness(always(no_connection()), max_contacts=10, max_retries=0)
        world.feed(numbered(10))
        world.run(65.0)
        probes = world.probes()
        assert [len(probe.names) for probe in probes] == [1] * 6
        assert len({probe.names[0] for probe in probes}) == 6
        assert [b.at - a.at for a, b in itertools.pairwise(probes)] == pytest.approx([10.1] * 5, abs=0.1)

    def test_a_429_in_between_changes_nothing_about_which_contact_is_next(self) -> None:
        world = DispatcherHarness(always(no_connection()), max_contacts=10, max_retries=0)
        world.feed(numbered(4))
        world.run_until(lambda: len(world.probes()) == 2)
        world.api = scripted(rate_limited(1.0), *[no_connection()] * 9)
        world.run_until(lambda: len(world.probes()) == 5)
        first, second, _, *others = (probe.names[0] for probe in world.probes())
        assert len({first, second, *others}) == 4

    def test_every_second_one_is_a_control(self) -> None:
        world = running()
        world.api = always(unexpected())
        world.feed(numbered(10))
        world.run(65.0)
        assert [probe.request.is_control for probe in world.probes()] == [True, False] * 3

    def test_the_result_of_a_probe_is_used(self) -> None:
        world = DispatcherHarness(always(no_connection()), max_contacts=3, max_retries=0)
        world.feed("abc")
        world.run_until(lambda: len(world.probes()) == 1)
        world.api = ok
        world.finish(within_s=15.0)
        scored = [name for sent in world.sent if sent.at >= world.probes()[1].at for name in sent.names]
        assert sorted(scored) == ["a", "b", "c"]

    @pytest.mark.parametrize("failure", [server_error(503, 45.0), rate_limited(45.0)])
    def test_none_before_retry_after(self, failure: ApiResponse) -> None:
        world = DispatcherHarness(always(server_error()), max_contacts=5, max_retries=0)
        world.feed(numbered(5))
        world.run_until(lambda: world.breaker.open_state is not None)
        world.api = always(failure)
        world.run(500.0, step_s=0.25)
        times = [sent.at for sent in world.probes()][1:]
        assert len(times) > 6
        assert all(later - earlier >= 45.0 for earlier, later in itertools.pairwise(times))

    def test_the_retry_after_of_the_failure_that_opens_the_breaker_counts(self) -> None:
        world = DispatcherHarness(always(server_error(503, 45.0)), max_contacts=5, max_retries=0)
        world.feed(numbered(5))
        world.run(44.0)
        assert world.breaker.open_state is not None
        assert len(world.sent) == 2, "the request, and the first contact of it in the place of a control"

    def test_more_is_wanted_once_every_waiting_contact_has_failed_as_a_probe(self) -> None:
        world = DispatcherHarness(poisoned("bad", "worse"), max_contacts=1, max_retries=0)
        world.feed(["bad", "worse"])
        world.run_until(lambda: world.breaker.open_state is not None)
        assert not world.dispatcher.all_probed
        world.run_until(lambda: world.dispatcher.all_probed, within_s=25.0)
        world.feed(["good"])
        assert not world.dispatcher.all_probed
        world.run_until(lambda: "good" in world.results, within_s=15.0)
        world.settle(within_s=5.0)
        assert {one.contact_id for one in world.deferrals} == {"bad", "worse"}

    def test_more_is_wanted_where_nothing_waits(self) -> None:
        world = DispatcherHarness(always(timed_out()), max_contacts=1, max_retries=0)
        world.feed("ab")
        world.run_until(lambda: world.breaker.open_state is not None)
        world.disown(0)
        world.run(11.0)
        assert world.dispatcher.all_probed

    def test_the_next_one_waits_for_the_answer(self) -> None:
        world = DispatcherHarness(always(no_connection()), max_contacts=2, max_retries=0)
        world.feed("ab")
        world.run_until(lambda: world.breaker.open_state is not None)
        world.latency_s = 35.0
        world.run(40.0)
        assert len(world.probes()) == 1

    def test_a_single_contact_that_fails_without_any_control_opens_nothing_and_waits_for_the_next_one(self) -> None:
        world = DispatcherHarness(poisoned("bad", answer=refused()))
        world.feed(["bad"])
        world.run(300.0, step_s=0.25)
        assert not world.observed.opened
        assert len(world.sent) == 1
        world.feed(["good"])
        world.settle(within_s=5.0)
        assert world.results == {"good": "scored"}
        assert [one.contact_id for one in world.deferrals] == ["bad"]


class TestHalfOpen:
    def test_one_lucky_probe_does_not_close_the_breaker(self) -> None:
        """The API is down but for every fourth request: what is bought stays small."""
        world = running(max_contacts=500)
        world.api = always(unexpected())
        world.feed(numbered(2_000))
        world.run_until(lambda: world.breaker.open_state is not None)
        opened, calls = world.now, itertools.count(1)
        world.api = lambda request: ok(request) if next(calls) % 4 == 0 else unexpected()
        world.run(120.0, step_s=0.1)
        assert len(world.observed.opened) >= 3
        assert max(len(sent.names) for sent in world.sent if sent.at > opened) <= 4
        world.api = ok
        world.finish()
        assert set(world.results.values()) == {"scored"}

    def test_requests_grow_from_one_contact_one_at_a_time(self) -> None:
        world = running(max_contacts=100)
        world.api = always(unexpected())
        world.feed(numbered(400))
        world.run_until(lambda: world.breaker.open_state is not None)
        world.api, ended = ok, world.now
        world.finish(within_s=20.0)
        after = [sent for sent in world.sent if sent.at >= ended]
        assert [len(sent.names) for sent in after[:6]] == [1, 2, 4, 8, 16, 32]
        assert all(b.at - a.at >= world.latency_s for a, b in itertools.pairwise(after[:6]))

    @pytest.mark.parametrize("way", ["503", "400 that names all", "time-out", "404"])
    def test_the_contacts_that_failed_go_before_those_that_were_read_later(self, way: str) -> None:
        """Commits wait for the oldest contact, so the first steps already finish it."""
        world = running(max_contacts=100, slots=4)
        world.api = OUTAGES[way]
        world.feed(numbered(1_600))
        world.run_until(lambda: world.breaker.open_state is not None)
        world.run(5.0)
        world.api, ended = ok, world.now
        world.run_until(lambda: len(world.committed) > 50 + 63, within_s=30.0)
        after = [sent for sent in world.sent if sent.at >= ended]
        assert len(after) <= 10, "the probe, and the steps"
        world.finish(within_s=30.0)
        sent = [one.request.contacts for one in world.sent if one.at >= ended and not one.request.is_control]
        oldest = [min(contact.record.offset for contact in contacts) for contacts in sent]
        assert oldest == sorted(oldest)

    def test_a_step_with_any_usable_result_passes(self) -> None:
        world = running(max_contacts=100)
        world.api = always(unexpected())
        world.feed(numbered(400))
        world.run_until(lambda: world.breaker.open_state is not None)
        world.api = lambda request: answered(names(request)[:1])
        world.run(20.0)
        assert world.breaker.open_state is None
        assert len(world.observed.opened) == 1
        assert max(len(sent.names) for sent in world.sent[-5:]) == 100


class TestVersions:
    def test_the_breaker_of_one_version_leaves_the_others_alone_and_its_contacts_wait_uncounted(self) -> None:
        world = DispatcherHarness(max_contacts=100)
        for version, prefix in (("v1", "first"), ("v2", "second")):
            world.feed(numbered(20, prefix), version=version, from_event=True)
        world.finish()
        world.api = lambda request: server_error(503) if request.key.model_version == "v1" else ok(request)
        world.feed(numbered(300, "one"), version="v1", from_event=True)
        world.feed(numbered(200, "two"), version="v2", from_event=True)
        world.run_until(lambda: bool(world.observed.version_trips))
        world.feed(numbered(100, "twotoo"), version="v2", from_event=True)
        world.run(60.0, step_s=0.1)
        assert sum(name.startswith("two") for name in world.results) == 300
        assert not any(name.startswith("one") for name in world.results)
        assert not world.observed.opened
        assert world.observed.version_trips[0] == ("v1", server_error(503).message, 1)  # type: ignore[union-attr]
        assert {one.rounds for one in world.deferrals} == {0}
        assert not world.ledger.uncommitted, "no partition waits"
        requests = [sent for sent in world.sent if sent.request.key.model_version == "v1" and sent.at > 1_010.0]
        assert all(len(sent.names) == 1 for sent in requests)
        assert len(requests) <= 6, "a probe every ten seconds"
        world.api = ok
        world.finish(within_s=200.0)
        assert set(world.results.values()) == {"scored"}
        assert world.observed.version_trips[-1] == ("v1", None, 0)

    def test_those_of_all_versions_open_the_apis_and_its_end_half_opens_them_all(self) -> None:
        world = DispatcherHarness(max_contacts=100)
        for number in range(4):
            world.feed(numbered(20, "before" + "abcd"[number]), version=f"v{number}", from_event=True)
        world.finish()
        world.api = always(server_error(503))
        for number in range(4):
            world.feed(numbered(300, "after" + "abcd"[number]), version=f"v{number}", from_event=True)
        world.run(40.0, step_s=0.1)
        assert len(world.observed.opened) == 1
        assert world.breaker.open_state is not None
        deferred = len(world.deferrals)
        world.run(40.0, step_s=0.1)
        assert len(world.deferrals) == deferred == 0
        world.api = ok
        world.finish(within_s=100.0)
        assert set(world.results.values()) == {"scored"}
        assert world.observed.version_trips[-1][1:] == (None, 0), "the metric of those that are open alone"

    @pytest.mark.parametrize("idle_s", [605.0, 650.0])
    def test_a_version_that_was_idle_is_probed_too_while_the_apis_breaker_is_open(self, idle_s: float) -> None:
        """Only v1 is broken, and for ten minutes nothing else was sent: a contact of v2 shows that the API works."""
        world = DispatcherHarness()
        world.feed(["a"], version="v1", from_event=True)
        world.run(30.0, step_s=0.5)
        world.feed(["b"], version="v2", from_event=True)
        world.finish()
        ends = world.now + idle_s
        while world.now < ends:
            world.feed([f"c{world.now}"], version="v1", from_event=True)
            world.run(50.0 if ends - world.now > 50.0 else 5.0, step_s=0.5)
        world.finish()
        world.api = lambda request: unexpected() if request.key.model_version == "v1" else ok(request)
        world.feed(["d", "e"], version="v1", from_event=True)
        world.run_until(lambda: world.breaker.open_state is not None)
        world.feed(["f"], version="v2", from_event=True)
        world.run_until(lambda: "f" in world.results, within_s=60.0)
        assert world.breaker.open_state is None

    def test_the_apis_opens_once_no_other_version_was_sent_to_for_ten_minutes(self) -> None:
        world = DispatcherHarness()
        world.feed(["a"], version="v2", from_event=True)
        world.feed(["b"], version="v1", from_event=True)
        world.finish()
        world.api = always(unexpected())
        world.feed(["d", "e"], version="v1", from_event=True)
        world.run(500.0, step_s=0.5)
        assert world.observed.version_trips
        assert world.breaker.open_state is None
        world.run(110.0, step_s=0.5)
        assert world.breaker.open_state is not None
        world.api = ok
        world.finish()


class TestDeferredContacts:
    def test_their_requests_never_open_a_breaker_and_count_nothing_while_none_succeeds(self) -> None:
        world = running()
        world.api = poisoned("bad", answer=refused())
        world.feed(["bad"])
        world.settle()
        assert [one.rounds for one in world.deferrals] == [1]
        world.api = always(server_error(503))
        world.run(400.0, step_s=0.25)
        assert not world.observed.opened
        assert {one.rounds for one in world.deferrals} == {1}
        assert len(world.deferrals) >= 4
        world.api = ok
        world.finish()
        assert Counter(world.results.values()) == {"scored": 51}

    def test_while_the_breaker_is_open_they_are_not_read(self) -> None:
        world = running()
        world.api = poisoned("bad", answer=refused())
        world.feed(["bad"])
        world.settle()
        world.api = always(unexpected())
        world.feed(numbered(10))
        world.run(200.0, step_s=0.25)
        assert world.breaker.open_state is not None
        assert world.deferred == 1
        assert len(world.deferrals) == 1
