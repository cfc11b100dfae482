"""Rare orders of events in the dispatcher: no contact is lost, waits without end, or is sent twice at once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from dispatcher_harness import DispatcherHarness, names, numbered, ok
from support_core import answered, cut_off, not_found, refused, server_error, timed_out, too_large

from stream_scorer.scoring.version_state import Phase

if TYPE_CHECKING:
    from stream_scorer.core.scoring.api_response import ApiResponse
    from stream_scorer.core.scoring.request import Request


@pytest.mark.parametrize("failure", [timed_out(), too_large(), cut_off(), answered([])])
def test_a_named_contact_is_kept_when_the_request_without_it_fails_otherwise(failure: ApiResponse) -> None:
    failures = [failure]

    def api(request: Request) -> ApiResponse:
        if "named" in names(request):
            return refused("named")
        return failures.pop() if failures and len(request.contacts) > 3 else ok(request)

    world = DispatcherHarness()
    world.feed(numbered(5))
    world.finish()
    world.api = api
    world.feed(["named", *numbered(9, "d")])
    world.settle(within_s=60.0)
    assert not failures
    assert [name for name, result in world.results.items() if result != "scored"] in ([], ["named"])
    assert len(world.results) + len(world.deferrals) == 15


def test_a_deferred_contact_left_out_in_its_last_round_is_queued_once() -> None:
    world = DispatcherHarness(retry_delays_s=(60.0,))
    world.feed(numbered(5))
    world.finish()
    world.api = lambda request: answered([name for name in names(request) if not name.startswith("bad")])
    world.feed(["bada", "badb", "slow"])
    world.settle()
    world.api = lambda _: answered([])
    world.feed(["slow", "company"])
    queued: Counter[str] = Counter()
    world.api = lambda request: answered([name for name in names(request) if name != "bada"])
    world.run_until(lambda: "badb" in world.results, step_s=0.25)
    queued.update(name for request in world.dispatcher._queue for name in names(request))
    queued.update(name for request in world.dispatcher._in_flight.values() for name in names(request))
    assert queued["bada"] == 1


def test_the_breaker_of_the_api_stays_closed_while_another_version_waits_unsent() -> None:
    world = DispatcherHarness(
        lambda request: server_error() if request.key.model_version == "bad" else ok(request), max_retries=0
    )
    world.feed(numbered(300), version="bad", from_event=True)
    world.run(0.1)
    world.feed(["waiting"], version="good", from_event=True)
    world.run_until(lambda: "waiting" in world.results, within_s=30.0)
    assert not world.observed.opened


def test_a_version_idle_before_an_outage_of_another_is_probed() -> None:
    is_down = False
    world = DispatcherHarness(
        lambda request: server_error() if is_down and request.key.model_version == "bad" else ok(request)
    )
    world.feed(["b"], version="idle", from_event=True)
    world.finish()
    world.run(605.0, step_s=5.0)
    world.feed(["a"], version="bad", from_event=True)
    world.finish()
    is_down = True
    world.feed(numbered(20, "x"), version="bad", from_event=True)
    world.run_until(lambda: world.breaker.open_state is not None, step_s=0.25)
    world.feed(["c"], version="idle", from_event=True)
    world.run_until(lambda: "c" in world.results, within_s=60.0, step_s=0.25)
    assert world.results["c"] == "scored"


def open_version() -> DispatcherHarness:
    """A version whose breaker alone is open, and partition 1 owned besides."""
    world = DispatcherHarness(max_retries=0)
    world.own(1)
    for version in ("bad", "good"):
        world.feed([version], version=version, from_event=True)
    world.finish()
    world.api = lambda request: server_error() if request.key.model_version == "bad" else ok(request)
    state = world.dispatcher._versions.get("bad", world.now)
    state.trip("it fails", world.now)
    world.now += 1.0
    world.feed(["works"], version="good", from_event=True)
    world.finish()
    world.run_until(lambda: not world.dispatcher.in_flight)
    world.now += 20.0
    world.api = ok
    return world


def test_a_contact_offered_as_a_probe_is_sent_when_its_breaker_has_closed_before() -> None:
    world = open_version()
    world.feed(["offered"], version="bad", from_event=True)
    assert world.dispatcher._probe.offered is not None
    world.dispatcher._versions.get("bad", world.now).half_open()
    world.settle(within_s=30.0)
    assert world.results["offered"] == "scored"


def test_a_contact_offered_as_a_probe_goes_with_its_partition() -> None:
    world = open_version()
    world.feed(["offered"], 1, version="bad", from_event=True)
    assert world.dispatcher._probe.offered is not None
    world.disown(1)
    assert world.dispatcher._probe.offered is None
    world.own(1)
    world.read(1)
    world.finish(within_s=200.0)
    assert world.asked["offered"] == 1
    assert world.results["offered"] == "scored"


def test_new_contacts_of_an_unknown_version_do_not_start_the_last_failures_of_others_over() -> None:
    world = DispatcherHarness(
        lambda request: not_found() if request.key.model_version == "bad" else ok(request), retry_delays_s=(60.0,)
    )
    world.feed(numbered(5))
    world.feed(["lone"], version="bad", from_event=True)
    second = 0
    while "lone" not in world.results:
        second += 1
        assert second < 240
        if second > 60:
            world.feed([f"new{second}"], version="bad", from_event=True)
        world.feed([f"good{second}"])
        world.run(1.0, step_s=0.25)
    assert world.asked["lone"] <= 6


def test_open_versions_cost_nothing_while_none_of_their_contacts_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    world = DispatcherHarness()
    for number in range(50):
        world.dispatcher._versions.use(f"v{number}", world.now).trip("it fails", world.now)
    world.dispatcher._versions.get(None, world.now).phase = Phase.CLOSED
    drained: list[str | None] = []
    monkeypatch.setattr(world.dispatcher._queue, "drain_batches", lambda version: drained.append(version) or [])
    world.feed(numbered(3))
    world.finish()
    world.run(0.2)
    assert not drained


def test_a_version_stays_open_while_its_contacts_come_back_as_probes() -> None:
    world = open_version()
    world.api = lambda request: server_error() if request.key.model_version == "bad" else ok(request)
    world.feed(numbered(3), version="bad", from_event=True)
    for second in range(80):
        world.feed([f"good{second}"], version="good", from_event=True)
        world.run(10.0, step_s=1.0)
    assert world.dispatcher._versions.get("bad", world.now).is_open


def test_the_breaker_of_a_version_that_comes_no_more_is_reported_closed() -> None:
    world = open_version()
    world.api = lambda request: server_error() if request.key.model_version == "bad" else ok(request)
    for second in range(80):
        world.feed([f"good{second}"], version="good", from_event=True)
        world.run(10.0, step_s=1.0)
    assert world.observed.version_trips == [("bad", None, 0)]
