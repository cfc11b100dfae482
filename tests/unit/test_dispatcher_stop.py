"""The end of a worker: what is finished before it, by the rules of the contract for a stop."""

from __future__ import annotations

from dispatcher_harness import STEP_S, DispatcherHarness, names, ok, poisoned
from support_core import refused


def drain(world: DispatcherHarness, within_s: float = 25.0) -> float:
    """Stop as the worker does; return the seconds that it took."""
    began, deadline = world.now, world.now + within_s
    dispatcher = world.dispatcher
    while world.now < deadline and (
        dispatcher.in_flight or (world.ledger.has_requested_outcome_blocked() and dispatcher.may_finish(deadline))
    ):
        dispatcher.send(started_only=True)
        dispatcher.handle_responses()
        world.commit()
        world.now += STEP_S
    return world.now - began


def test_a_search_is_finished_with_controls_and_nothing_is_billed_again() -> None:
    """With nothing in flight beside it, each failure of the search waits for a control: that is no reason to end."""
    world = DispatcherHarness(poisoned("c5", answer=refused()), slots=2)
    world.feed([f"c{n}" for n in range(1_000)])
    world.run_until(lambda: world.observed.controls > 1)
    world.feed(["later"])
    assert drain(world) < 10.0
    assert len(world.results) == 999
    assert [world.made[0, one.record.offset].contact_id for one in world.deferrals] == ["c5"]
    assert world.ledger.requested_uncommitted == 0


def test_a_stop_does_not_wait_for_a_control_that_comes_too_late() -> None:
    """The limit of controls is used up: the next one is due after the end."""
    world = DispatcherHarness(
        lambda request: refused() if any(n.startswith("bad") for n in names(request)) else ok(request)
    )
    world.feed([*(f"c{n}" for n in range(100)), *(f"bad{n}" for n in range(30)), *(f"d{n}" for n in range(20))])
    world.run_until(lambda: world.observed.controls == 20 and not world.dispatcher.in_flight)
    assert drain(world, 5.0) < 1.0
