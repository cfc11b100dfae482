"""Circuit breakers of campaigns and target: when they open and close, and which campaign is probed next."""

from __future__ import annotations

from dataclasses import replace

from stream_scorer.core.callbacks.circuit_breaker import RECENT_S, BreakerStatus, CircuitBreakers
from stream_scorer.core.callbacks.types import DeliveryAnswer, DeliveryKind
from stream_scorer.core.records import Partition

ACCEPTED = DeliveryAnswer(DeliveryKind.DELIVERED, "HTTP 200", 200, 50.0)
NOT_FOUND = DeliveryAnswer(DeliveryKind.REFUSED, "HTTP 404", 404, 50.0, remedy="check the path")
TIME_OUT = DeliveryAnswer(DeliveryKind.TRY_LATER, "time-out", None, 50.0, is_unanswered=True)
CONFLICT = DeliveryAnswer(DeliveryKind.DELIVERED, "HTTP 409", 409, 50.0, is_conflict=True)
GONE = DeliveryAnswer(DeliveryKind.SWITCHED_OFF, "HTTP 410", 410, 50.0)
LIMITED = DeliveryAnswer(DeliveryKind.TRY_LATER, "HTTP 429", 429, 50.0)
PLACE = Partition("callbacks", 0)


class Scene:
    def __init__(self) -> None:
        self.now = 10_000.0
        self.breakers = CircuitBreakers(10.0, 21_600.0)

    def answers(self, campaign_id: str, answer: DeliveryAnswer, number: int = 1, callbacks: int = 3) -> None:
        for n in range(number):
            self.breakers.seen(campaign_id, PLACE, self.now)
            self.breakers.sent(campaign_id, self.now)
            self.breakers.responded(campaign_id, f"{campaign_id}-{n % callbacks}", answer, self.now)

    def probe(self, campaign_id: str, answer: DeliveryAnswer) -> None:
        self.breakers.sent(campaign_id, self.now, is_probe=True)
        self.breakers.probe_ended(campaign_id, self.now)
        self.breakers.responded(campaign_id, "probe", answer, self.now)

    def status(self, campaign_id: str) -> BreakerStatus:
        return self.breakers.status(campaign_id)


def test_a_campaign_opens_after_eight_failures_in_a_row_of_three_callbacks() -> None:
    scene = Scene()
    scene.answers("other", ACCEPTED)
    scene.answers("a", NOT_FOUND, 7)
    assert scene.status("a") is BreakerStatus.CLOSED
    scene.answers("a", ACCEPTED)
    scene.answers("a", NOT_FOUND, 7)
    assert scene.status("a") is BreakerStatus.CLOSED, "an acceptance in between"
    scene.answers("a", TIME_OUT)
    assert scene.status("a") is BreakerStatus.OPEN
    assert scene.breakers.blocks("a")
    assert not scene.breakers.blocks("other")
    assert not scene.breakers.is_target_open


def test_two_callbacks_are_not_enough() -> None:
    scene = Scene()
    scene.answers("a", NOT_FOUND, 100, callbacks=2)
    assert scene.status("a") is BreakerStatus.CLOSED


def test_a_rate_limit_is_no_failure() -> None:
    scene = Scene()
    scene.answers("a", LIMITED, 100)
    assert scene.status("a") is BreakerStatus.CLOSED


def test_the_target_opens_with_the_only_campaign_and_closes_with_the_first_acceptance() -> None:
    scene = Scene()
    scene.answers("a", NOT_FOUND, 8)
    assert scene.breakers.is_target_open
    target = scene.breakers.target()
    assert target is not None
    assert (target.message, target.http_status, target.remedy) == ("HTTP 404", 404, "check the path")
    scene.probe("a", ACCEPTED)
    assert not scene.breakers.is_target_open
    assert scene.status("a") is BreakerStatus.CLOSED


def test_the_target_stays_closed_while_a_campaign_of_the_last_ten_minutes_is() -> None:
    scene = Scene()
    scene.answers("well", ACCEPTED)
    scene.answers("a", NOT_FOUND, 8)
    scene.answers("b", NOT_FOUND, 8)
    assert not scene.breakers.is_target_open
    scene.now += RECENT_S + 1
    scene.probe("a", NOT_FOUND)
    assert scene.breakers.is_target_open


def test_the_target_does_not_open_with_one_of_several_campaigns() -> None:
    scene = Scene()
    scene.breakers.seen("waits", PLACE, scene.now)
    scene.answers("a", NOT_FOUND, 8)
    assert scene.status("a") is BreakerStatus.OPEN
    assert not scene.breakers.is_target_open, "whether the target accepts the other campaign is not known"
    scene.answers("waits", NOT_FOUND, 8)
    assert scene.breakers.is_target_open


def test_a_campaign_that_is_switched_off_neither_opens_nor_holds_the_target() -> None:
    scene = Scene()
    scene.answers("off", GONE)
    assert scene.status("off") is BreakerStatus.SWITCHED_OFF
    assert not scene.breakers.is_target_open
    scene.answers("a", NOT_FOUND, 8)
    assert scene.breakers.is_target_open


def test_any_response_but_410_ends_switched_off_and_no_response_does_not() -> None:
    scene = Scene()
    scene.answers("off", GONE)
    scene.answers("off", TIME_OUT)
    assert scene.status("off") is BreakerStatus.SWITCHED_OFF
    assert not scene.breakers.is_probe_due("off", scene.now + 599)
    assert scene.breakers.is_probe_due("off", scene.now + 600)
    scene.answers("off", NOT_FOUND)
    assert scene.status("off") is BreakerStatus.CLOSED
    scene.answers("off", GONE)
    scene.answers("off", LIMITED)
    assert scene.status("off") is BreakerStatus.CLOSED


def test_one_probe_each_interval_rotates_over_the_campaigns() -> None:
    scene = Scene()
    for name in ("a", "b", "c"):
        scene.answers(name, NOT_FOUND, 8)
    sent = []
    for _ in range(90):
        if due := scene.breakers.next_probes(["a", "b", "c"], scene.now):
            sent.append((scene.now - 10_000, due[0]))
            scene.probe(str(due[0]), NOT_FOUND)
        scene.now += 1
    assert sent == [(at, "abc"[n % 3]) for n, at in enumerate(range(10, 90, 10))]


def test_an_acceptance_makes_the_next_probe_due_at_once() -> None:
    scene = Scene()
    for name in ("a", "b", "c"):
        scene.answers(name, NOT_FOUND, 8)
    scene.now += 10
    for name in ("a", "b", "c"):
        assert scene.breakers.next_probes([one for one in "abc" if scene.breakers.blocks(one)], scene.now)[0] == name
        scene.probe(name, ACCEPTED)
    assert not any(scene.breakers.blocks(name) for name in "abc")


def test_a_half_open_campaign_has_one_probe_in_flight() -> None:
    scene = Scene()
    scene.answers("a", NOT_FOUND, 8)
    scene.now += 10
    scene.breakers.sent("a", scene.now, is_probe=True)
    assert scene.status("a") is BreakerStatus.HALF_OPEN
    scene.now += 10
    assert scene.breakers.next_probes(["a"], scene.now) == []


def test_a_probe_without_a_request_uses_up_none() -> None:
    scene = Scene()
    for name in ("a", "b"):
        scene.answers(name, NOT_FOUND, 8)
    scene.breakers.seen("new", PLACE, scene.now)
    scene.now += 10
    for name in ("new", "a"):
        assert scene.breakers.next_probes([name, "b"], scene.now)[0] == name
        scene.breakers.sent(name, scene.now, is_probe=True)
        scene.breakers.probe_ended(name, scene.now, was_sent=False)
        assert scene.breakers.next_probes([name, "b"], scene.now)[0] == name
    scene.answers("off", GONE)
    scene.now += 600
    scene.breakers.sent("off", scene.now, is_probe=True)
    scene.breakers.probe_ended("off", scene.now, was_sent=False)
    assert scene.breakers.is_probe_due("off", scene.now)


def test_a_campaign_not_sent_to_since_then_is_probed_first_and_at_once() -> None:
    scene = Scene()
    scene.answers("a", NOT_FOUND, 8)
    scene.breakers.seen("new", PLACE, scene.now)
    assert scene.breakers.awaits_first_probe("new", scene.now)
    assert not scene.breakers.awaits_first_probe("a", scene.now)
    assert scene.breakers.next_probes(["a", "new"], scene.now) == ["new"]
    scene.breakers.sent("new", scene.now, is_probe=True)
    assert scene.breakers.awaits_first_probe("new", scene.now)
    scene.breakers.probe_ended("new", scene.now)
    scene.breakers.responded("new", "x", TIME_OUT, scene.now)
    assert not scene.breakers.awaits_first_probe("new", scene.now)
    assert scene.breakers.next_probes(["a", "new"], scene.now) == []


def test_the_others_are_probed_while_the_receiver_demands_a_pause_for_a_campaign_that_would_be_first() -> None:
    scene = Scene()
    for name in ("a", "b"):
        scene.answers(name, NOT_FOUND, 8)
    scene.breakers.seen("new", PLACE, scene.now)
    scene.now += 10
    assert scene.breakers.next_probes(["new", "a", "b"], scene.now) == ["new", "a", "b"]
    for number in range(4):
        scene.breakers.sent(f"new-{number}", scene.now, is_probe=True)
    assert scene.breakers.next_probes(["new", "a", "b"], scene.now) == ["a", "b"], "four first probes at once"


def test_campaigns_without_callbacks_are_forgotten_and_failures_are_not() -> None:
    scene = Scene()
    scene.answers("well", ACCEPTED)
    scene.answers("a", NOT_FOUND, 7)
    scene.now += 3_600
    scene.breakers.forget(scene.now, lambda _: True)
    scene.answers("a", NOT_FOUND)
    assert scene.breakers.is_target_open
    scene.now += 21_600 + RECENT_S - 1
    scene.breakers.forget(scene.now, lambda _: True)
    assert scene.breakers.is_target_open, "its callbacks may wait for the longest delay"
    scene.now += 2
    scene.breakers.forget(scene.now, lambda _: True)
    assert not scene.breakers.is_target_open
    assert scene.breakers.campaigns() == []


def test_a_409_that_is_an_acceptance_closes_the_breaker_and_shows_no_other_acceptance() -> None:
    scene = Scene()
    scene.answers("a", NOT_FOUND, 8)
    scene.probe("a", CONFLICT)
    assert scene.status("a") is BreakerStatus.CLOSED
    assert not scene.breakers.is_accepting("a")
    scene.answers("a", ACCEPTED)
    scene.answers("a", CONFLICT)
    assert scene.breakers.is_accepting("a")
    scene.answers("a", replace(CONFLICT, kind=DeliveryKind.REFUSED))
    assert not scene.breakers.is_accepting("a")


def test_a_campaign_ends_with_the_last_partition_that_had_its_callbacks() -> None:
    scene = Scene()
    other = Partition("retry-1", 3)
    scene.answers("a", NOT_FOUND, 8)
    scene.breakers.seen("a", other, scene.now)
    scene.breakers.forget(scene.now, lambda partition: partition == other)
    assert scene.breakers.is_target_open
    scene.breakers.forget(scene.now, lambda _: False)
    assert not scene.breakers.is_target_open
    assert scene.breakers.campaigns() == []
