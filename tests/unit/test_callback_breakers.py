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
NO_ADDRESS = DeliveryAnswer(DeliveryKind.REFUSED, "no value for phone of the contact list", None, 0.0)
LIMITED = DeliveryAnswer(DeliveryKind.TRY_LATER, "HTTP 429", 429, 50.0)
PLACE = Partition("callbacks", 0)


class Harness:
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
    harness = Harness()
    harness.answers("other", ACCEPTED)
    harness.answers("a", NOT_FOUND, 7)
    assert harness.status("a") is BreakerStatus.CLOSED
    harness.answers("a", ACCEPTED)
    harness.answers("a", NOT_FOUND, 7)
    assert harness.status("a") is BreakerStatus.CLOSED, "an acceptance in between"
    harness.answers("a", TIME_OUT)
    assert harness.status("a") is BreakerStatus.OPEN
    assert harness.breakers.blocks("a")
    assert not harness.breakers.blocks("other")
    assert not harness.breakers.is_target_open


def test_failures_of_two_callbacks_open_no_breaker() -> None:
    harness = Harness()
    harness.answers("a", NOT_FOUND, 100, callbacks=2)
    assert harness.status("a") is BreakerStatus.CLOSED


def test_a_rate_limit_is_no_failure() -> None:
    harness = Harness()
    harness.answers("a", LIMITED, 100)
    assert harness.status("a") is BreakerStatus.CLOSED


def test_the_target_opens_with_the_only_campaign_and_closes_with_the_first_acceptance() -> None:
    harness = Harness()
    harness.answers("a", NOT_FOUND, 8)
    assert harness.breakers.is_target_open
    target = harness.breakers.target()
    assert target is not None
    assert (target.message, target.http_status, target.remedy) == ("HTTP 404", 404, "check the path")
    harness.probe("a", ACCEPTED)
    assert not harness.breakers.is_target_open
    assert harness.status("a") is BreakerStatus.CLOSED


def test_the_target_stays_closed_while_a_campaign_of_the_last_ten_minutes_is() -> None:
    harness = Harness()
    harness.answers("well", ACCEPTED)
    harness.answers("a", NOT_FOUND, 8)
    harness.answers("b", NOT_FOUND, 8)
    assert not harness.breakers.is_target_open
    harness.now += RECENT_S + 1
    harness.probe("a", NOT_FOUND)
    assert harness.breakers.is_target_open


def test_the_target_does_not_open_with_one_of_several_campaigns() -> None:
    harness = Harness()
    harness.breakers.seen("waits", PLACE, harness.now)
    harness.answers("a", NOT_FOUND, 8)
    assert harness.status("a") is BreakerStatus.OPEN
    assert not harness.breakers.is_target_open, "whether the target accepts the other campaign is not known"
    harness.answers("waits", NOT_FOUND, 8)
    assert harness.breakers.is_target_open


def test_a_campaign_that_is_switched_off_neither_opens_nor_holds_the_target() -> None:
    harness = Harness()
    harness.answers("off", GONE)
    assert harness.status("off") is BreakerStatus.SWITCHED_OFF
    assert not harness.breakers.is_target_open
    harness.answers("a", NOT_FOUND, 8)
    assert harness.breakers.is_target_open


def test_any_response_but_410_ends_switched_off_and_no_response_does_not() -> None:
    harness = Harness()
    harness.answers("off", GONE)
    harness.answers("off", TIME_OUT)
    assert harness.status("off") is BreakerStatus.SWITCHED_OFF
    assert not harness.breakers.is_probe_due("off", harness.now + 599)
    assert harness.breakers.is_probe_due("off", harness.now + 600)
    harness.answers("off", NOT_FOUND)
    assert harness.status("off") is BreakerStatus.CLOSED
    harness.answers("off", GONE)
    harness.answers("off", LIMITED)
    assert harness.status("off") is BreakerStatus.CLOSED


def test_one_probe_each_interval_rotates_over_the_campaigns() -> None:
    harness = Harness()
    for name in ("a", "b", "c"):
        harness.answers(name, NOT_FOUND, 8)
    sent = []
    for _ in range(90):
        if due := harness.breakers.next_probes(["a", "b", "c"], harness.now):
            sent.append((harness.now - 10_000, due[0]))
            harness.probe(str(due[0]), NOT_FOUND)
        harness.now += 1
    assert sent == [(at, "abc"[n % 3]) for n, at in enumerate(range(10, 90, 10))]


def test_an_acceptance_makes_the_next_probe_due_at_once() -> None:
    harness = Harness()
    for name in ("a", "b", "c"):
        harness.answers(name, NOT_FOUND, 8)
    harness.now += 10
    for name in ("a", "b", "c"):
        assert (
            harness.breakers.next_probes([one for one in "abc" if harness.breakers.blocks(one)], harness.now)[0] == name
        )
        harness.probe(name, ACCEPTED)
    assert not any(harness.breakers.blocks(name) for name in "abc")


def test_a_half_open_campaign_has_one_probe_in_flight() -> None:
    harness = Harness()
    harness.answers("a", NOT_FOUND, 8)
    harness.now += 10
    harness.breakers.sent("a", harness.now, is_probe=True)
    assert harness.status("a") is BreakerStatus.HALF_OPEN
    harness.now += 10
    assert harness.breakers.next_probes(["a"], harness.now) == []


def test_a_probe_without_a_request_does_not_count() -> None:
    harness = Harness()
    for name in ("a", "b"):
        harness.answers(name, NOT_FOUND, 8)
    harness.breakers.seen("new", PLACE, harness.now)
    harness.now += 10
    for name in ("new", "a"):
        assert harness.breakers.next_probes([name, "b"], harness.now)[0] == name
        harness.breakers.sent(name, harness.now, is_probe=True)
        harness.breakers.probe_ended(name, harness.now, was_sent=False)
        assert harness.breakers.next_probes([name, "b"], harness.now)[0] == name
    harness.answers("off", GONE)
    harness.now += 600
    harness.breakers.sent("off", harness.now, is_probe=True)
    harness.breakers.probe_ended("off", harness.now, was_sent=False)
    assert harness.breakers.is_probe_due("off", harness.now)


def test_a_callback_that_is_refused_without_a_request_neither_opens_nor_closes_a_breaker() -> None:
    harness = Harness()
    harness.answers("a", NO_ADDRESS, 50)
    assert harness.status("a") is BreakerStatus.CLOSED
    assert not harness.breakers.is_target_open
    harness.answers("a", NOT_FOUND, 8)
    harness.answers("a", NO_ADDRESS)
    assert harness.status("a") is BreakerStatus.OPEN
    [blocked] = harness.breakers.campaigns()
    assert (blocked.message, blocked.remedy) == ("HTTP 404", "check the path")


def test_a_campaign_not_sent_to_since_then_is_probed_first_and_at_once() -> None:
    harness = Harness()
    harness.answers("a", NOT_FOUND, 8)
    harness.breakers.seen("new", PLACE, harness.now)
    assert harness.breakers.awaits_first_probe("new", harness.now)
    assert not harness.breakers.awaits_first_probe("a", harness.now)
    assert harness.breakers.next_probes(["a", "new"], harness.now) == ["new"]
    harness.breakers.sent("new", harness.now, is_probe=True)
    assert harness.breakers.awaits_first_probe("new", harness.now)
    harness.breakers.probe_ended("new", harness.now)
    harness.breakers.responded("new", "x", TIME_OUT, harness.now)
    assert not harness.breakers.awaits_first_probe("new", harness.now)
    assert harness.breakers.next_probes(["a", "new"], harness.now) == []


def test_the_others_are_probed_while_the_receiver_demands_a_pause_for_a_campaign_that_would_be_first() -> None:
    harness = Harness()
    for name in ("a", "b"):
        harness.answers(name, NOT_FOUND, 8)
    harness.breakers.seen("new", PLACE, harness.now)
    harness.now += 10
    assert harness.breakers.next_probes(["new", "a", "b"], harness.now) == ["new", "a", "b"]
    for number in range(4):
        harness.breakers.sent(f"new-{number}", harness.now, is_probe=True)
    assert harness.breakers.next_probes(["new", "a", "b"], harness.now) == ["a", "b"], "four first probes at once"


def test_idle_campaigns_are_evicted_and_their_failures_are_kept() -> None:
    harness = Harness()
    harness.answers("well", ACCEPTED)
    harness.answers("a", NOT_FOUND, 7)
    harness.now += 3_600
    harness.breakers.forget(harness.now, lambda _: True)
    harness.answers("a", NOT_FOUND)
    assert harness.breakers.is_target_open
    harness.now += 21_600 + RECENT_S - 1
    harness.breakers.forget(harness.now, lambda _: True)
    assert harness.breakers.is_target_open, "its callbacks may wait for the longest delay"
    harness.now += 2
    harness.breakers.forget(harness.now, lambda _: True)
    assert not harness.breakers.is_target_open
    assert harness.breakers.campaigns() == []


def test_a_409_that_is_an_acceptance_closes_the_breaker_and_shows_no_other_acceptance() -> None:
    harness = Harness()
    harness.answers("a", NOT_FOUND, 8)
    harness.probe("a", CONFLICT)
    assert harness.status("a") is BreakerStatus.CLOSED
    assert not harness.breakers.is_accepting("a")
    harness.answers("a", ACCEPTED)
    harness.answers("a", CONFLICT)
    assert harness.breakers.is_accepting("a")
    harness.answers("a", replace(CONFLICT, kind=DeliveryKind.REFUSED))
    assert not harness.breakers.is_accepting("a")


def test_a_campaign_ends_with_the_last_partition_that_had_its_callbacks() -> None:
    harness = Harness()
    other = Partition("retry-1", 3)
    harness.answers("a", NOT_FOUND, 8)
    harness.breakers.seen("a", other, harness.now)
    harness.breakers.forget(harness.now, lambda partition: partition == other)
    assert harness.breakers.is_target_open
    harness.breakers.forget(harness.now, lambda _: False)
    assert not harness.breakers.is_target_open
    assert harness.breakers.campaigns() == []
