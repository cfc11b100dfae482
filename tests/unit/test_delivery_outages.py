"""Outages of a receiver, in simulated time: nothing is lost, refused or delivered twice, and it recovers soon."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from delivery_harness import DELAYS_S, DeliveryHarness, SimulatedReceivers, callback, delivered, gone, later
from hypothesis import given
from hypothesis import strategies as st
from support_fuzz import fuzz

from stream_scorer.callbacks.observer import DelivererObserver
from stream_scorer.core.callbacks.types import DeliveryAnswer, DeliveryKind
from stream_scorer.core.records import Partition
from stream_scorer.runtime.metric_definitions import CAMPAIGN_BLOCKED, CAMPAIGNS_BLOCKED

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from stream_scorer.core.callbacks.types import Callback

OUTAGE_S = 600.0


def refuses(status: int, latency_ms: float = 20.0) -> DeliveryAnswer:
    return DeliveryAnswer(
        DeliveryKind.REFUSED, f"HTTP {status}", status, latency_ms, remedy="look", is_conflict=status == 409
    )


def certificate_error() -> DeliveryAnswer:
    return DeliveryAnswer(
        DeliveryKind.TRY_LATER, "the certificate is not trusted", None, 20.0, remedy="look", is_unanswered=True
    )


FAILURES = {str(status): refuses(status) for status in (302, 400, 401, 403, 404, 405, 413, 422, 451)} | {
    "tls": certificate_error(),
    "503": later(),
    "503, Retry-After": later(30.0),
    "hangs": DeliveryAnswer(DeliveryKind.TRY_LATER, "time-out", None, 15_000.0, is_unanswered=True),
}


@pytest.mark.parametrize(
    ("failure", "campaigns"),
    [(failure, n) for failure in FAILURES for n in ((1, 3, 20) if failure in ("404", "tls", "hangs") else (3,))],
)
def test_an_outage_of_ten_minutes_refuses_nothing_and_everything_is_delivered_afterwards(
    failure: str, campaigns: int
) -> None:
    response = FAILURES[failure]
    back_at = 1_000 + OUTAGE_S
    world = SimulatedReceivers(lambda w, _: response if w.now < back_at else delivered())
    world.plan(callback(f"cb-{n}", f"k{n % campaigns}") for n in range(300))
    bench = DeliveryHarness(world, slots=32)
    seen: list[str | None] = []

    def feed() -> None:
        if world.now > 1_000 + len(seen) * 30:  # one each half a minute, also after the outage
            seen.append(bench.observe.readiness_failure())
            world.plan([callback(f"more-{len(seen)}", f"k{len(seen) % campaigns}")])

    bench.run(lambda: world.now > back_at + 300 and not world.waiting(), feed)
    assert set(world.outcomes().values()) == {"DELIVERED"}
    assert len(world.outcomes()) == 300 + len(seen)
    late = max(attempt.at_s for attempt in world.attempts if attempt.callback.callback_id.startswith("cb-"))
    assert late - back_at < max(DELAYS_S) + 90, "the longest wait in a retry topic, and the probes before it"
    during = [attempt for attempt in world.attempts if 1_150 < attempt.at_s < back_at]
    assert len(during) <= OUTAGE_S / 5 + campaigns, "one probe each 5 s, and deliveries in flight"
    assert any(reason is not None and "circuit open: t: " in reason for reason in seen[10:-5])
    events = [event for event, _ in world.lines if event.startswith("circuit")]
    assert events == ["circuit opened", "circuit closed"]
    [opened] = [fields for event, fields in world.lines if event == "circuit opened"]
    assert (opened["target"], opened["status"], opened["reason"]) == ("t", response.status, response.message)


def test_restarts_during_an_outage_refuse_nothing_although_the_window_is_full() -> None:
    world = SimulatedReceivers(lambda w, _: refuses(404) if w.now < 6_000 else delivered())
    world.plan(callback(f"cb-{n}", f"k{n % 2}") for n in range(200))
    for life in range(20):
        until = 1_000 + 250 * (life + 1)
        DeliveryHarness(world, max_uncommitted=10).run(lambda until=until: world.now > until)
    DeliveryHarness(world).run_dry()
    assert Counter(world.outcomes().values()) == {"DELIVERED": 200}


def test_probes_rotate_over_the_callbacks() -> None:
    """Otherwise one callback that can never be accepted would keep the breaker open."""
    world = SimulatedReceivers(
        lambda w, one: refuses(400) if w.now < 1_300 or one.callback_id.startswith("bad") else delivered()
    )
    world.plan(callback(f"{'bad' if n < 10 else 'cb'}-{n}") for n in range(40))
    bench = DeliveryHarness(world)
    bench.run(lambda: sum(outcome == "DELIVERED" for outcome in world.outcomes().values()) == 30)
    probed = Counter(attempt.callback.callback_id for attempt in world.attempts if 1_020 < attempt.at_s < 1_300)
    assert len(probed) >= 20
    assert max(probed.values()) <= 5
    assert world.last_sent("cb-") - 1_300 < 3 * max(DELAYS_S) + 60, "the bad ones open it again now and then"


def test_a_quiet_stream_is_probed_every_interval() -> None:
    """With only three callbacks they are probes in turn, although they are in a retry topic in between."""
    world = SimulatedReceivers(lambda w, _: refuses(404) if w.now < 1_600 else delivered())
    world.plan(callback(f"cb-{n}") for n in range(3))
    DeliveryHarness(world).run_dry()
    assert set(world.outcomes().values()) == {"DELIVERED"}
    assert world.now - 1_600 < 30, "the delay of the first retry topic, and a few probes"


def test_the_oldest_undelivered_callback_and_those_in_retry_topics_are_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[tuple[float, float, int]] = []
    world = SimulatedReceivers(lambda w, _: refuses(404) if w.now < 1_600 else delivered())

    def undelivered(_: DelivererObserver, oldest_age_s: float, in_retry_topics: Mapping[int, int]) -> None:
        measured.append((world.now - 1_000, oldest_age_s, sum(in_retry_topics.values())))

    monkeypatch.setattr(DelivererObserver, "undelivered", undelivered)
    world.plan(callback(f"cb-{n}") for n in range(30))
    bench = DeliveryHarness(world)
    bench.run(lambda: not world.waiting() and world.now > 1_800)
    during = [(at_s, age_s, waiting) for at_s, age_s, waiting in measured if 100 < at_s < 600]
    assert all(age_s == pytest.approx(at_s, abs=2) for at_s, age_s, _ in during)
    assert max(waiting for _, _, waiting in during) <= 30
    assert sorted(waiting for _, _, waiting in during)[len(during) // 2] > 10
    assert measured[-1][1:] == (0.0, 0)


def test_one_campaign_that_fails_does_not_delay_the_others() -> None:
    for failure in (refuses(404), gone(), FAILURES["hangs"]):
        world = SimulatedReceivers(
            lambda _, one, failure=failure: failure if one.campaign_id == "bad" else delivered(20)
        )
        fed: dict[str, float] = {}
        bench = DeliveryHarness(world, slots=32)

        def feed(world: SimulatedReceivers = world, fed: dict[str, float] = fed) -> None:
            n = len(fed)
            if n < 1_000 and world.now > 1_000 + n / 2:
                name = f"cb-{n}"
                fed[name] = world.now
                world.plan([callback(name, f"k{n % 5}"), callback(f"bad-{n}", "bad")])

        bench.run(lambda world=world, fed=fed: len(fed) == 1_000 and {*fed} <= world.sent().keys(), feed)
        waits = sorted(
            attempt.at_s - fed[attempt.callback.callback_id]
            for attempt in world.attempts
            if attempt.callback.campaign_id != "bad"
        )
        assert len(waits) == 1_000
        assert waits[-1] <= 0.5, "the longest step of the simulated clock"
        assert not any(event == "circuit opened" for event, _ in world.lines)


def test_a_campaign_that_begins_while_the_only_other_fails_does_not_wait_for_a_probe() -> None:
    world = SimulatedReceivers(lambda _, one: refuses(404) if one.campaign_id == "bad" else delivered(20))
    world.plan(callback(f"bad-{n}", "bad") for n in range(20))
    bench = DeliveryHarness(world)
    bench.run(lambda: world.now > 1_060)
    began = world.now
    world.plan(callback(f"cb-{n}", "new") for n in range(200))
    bench = DeliveryHarness(world)
    bench.run(lambda: world.sent().keys() >= {f"cb-{n}" for n in range(200)})
    assert world.last_sent("cb-") - began < 3


def test_a_409_after_a_lost_answer_is_delivered_also_in_a_later_round() -> None:
    tries: Counter[str] = Counter()

    def answer(_: SimulatedReceivers, one: Callback) -> DeliveryAnswer:
        tries[one.callback_id] += 1
        if one.callback_id == "never":
            return refuses(409)
        return FAILURES["hangs"] if tries[one.callback_id] == 1 else later() if tries["lost"] <= 4 else refuses(409)

    world = SimulatedReceivers(answer)
    planned: list[float] = []

    def plan() -> None:
        if world.now > 1_001 and not planned:  # after the start: no former worker can have sent them
            planned.append(world.now)
            world.plan([callback("lost"), callback("never")])

    DeliveryHarness(world).run(lambda: bool(planned) and not world.waiting(), plan)
    assert world.outcomes() == {"lost": "DELIVERED", "never": "REFUSED"}
    assert tries["lost"] == 5


def test_a_409_to_what_a_killed_worker_has_sent_is_delivered() -> None:
    accepted: set[str] = set()

    def answer(_: SimulatedReceivers, one: Callback) -> DeliveryAnswer:
        if one.callback_id in accepted:
            return refuses(409)
        accepted.add(one.callback_id)
        return delivered(2_000)

    world = SimulatedReceivers(answer)
    world.plan(callback(f"cb-{n}") for n in range(60))
    DeliveryHarness(world, slots=32).kill_when(lambda: world.now > 1_001)
    assert len(accepted) > 8, "enough to open the circuit breaker"
    assert not world.receipts()
    DeliveryHarness(world, slots=32).run_dry()
    assert world.outcomes() == {f"cb-{n}": "DELIVERED" for n in range(60)}
    assert not any(event in ("campaign deliveries failing", "circuit opened") for event, _ in world.lines)


def test_a_campaign_that_answers_409_to_everything_after_a_restart_is_one_line() -> None:
    world = SimulatedReceivers(lambda _, one: refuses(409) if one.campaign_id == "bad" else delivered())
    world.plan(callback(f"cb-{n}", ("bad", "good")[n % 2]) for n in range(40))
    bench = DeliveryHarness(world)
    bench.run(lambda: world.now > 1_020)
    [line] = [fields for event, fields in world.lines if event == "campaign deliveries failing"]
    assert (line["campaign_id"], line["status"], line["remedy"]) == ("bad", 409, "look")
    assert [note for note in bench.observe.readiness_notes() if "'bad': circuit" in note]


def test_a_409_with_retry_after_pauses_the_campaign_regardless_of_the_sender() -> None:
    world = SimulatedReceivers(lambda _, __: replace(refuses(409), retry_after_s=60.0))
    world.plan(callback(f"cb-{n}") for n in range(8))
    DeliveryHarness(world, slots=1).run(lambda: world.now > 1_050)
    assert len(world.attempts) == 1


def test_a_receiver_that_answers_409_to_everything_loses_no_callback_by_a_restart() -> None:
    world = SimulatedReceivers(lambda _, __: refuses(409))
    world.plan(callback(f"cb-{n}", f"k{n % 2}") for n in range(300))
    DeliveryHarness(world).run(lambda: world.now > 1_060)
    DeliveryHarness(world).run(lambda: world.now > 1_200)
    assert not world.outcomes()
    world.answer = lambda _, __: delivered()
    DeliveryHarness(world).run_dry()
    assert set(world.outcomes().values()) == {"DELIVERED"}
    assert {receipt["http_status"] for [receipt] in world.receipts().values()} == {200}


def test_a_pause_of_one_campaign_stops_no_probe_of_another() -> None:
    def answer(w: SimulatedReceivers, one: Callback) -> DeliveryAnswer:
        if one.campaign_id == "pauses":
            return later(1_000.0)
        return delivered() if w.now > 1_750 else refuses(404)

    world = SimulatedReceivers(answer)
    world.plan([callback("p-0", "pauses")])
    bench = DeliveryHarness(world)

    def plan() -> None:
        if world.now > 1_700 and not world.sent()["cb-0"]:
            world.plan(callback(f"cb-{n}", "fails") for n in range(20))
        if world.now > 1_720 and len(world.topic("callbacks")) < 40:
            world.plan(callback(f"p-{n}", "pauses") for n in range(1, 20))

    bench.run(lambda: sum(name.startswith("cb-") for name in world.outcomes()) == 20, plan)
    assert world.now < 1_900


def test_a_long_pause_leaves_no_callback_of_a_blocked_campaign_in_memory() -> None:
    world = SimulatedReceivers(lambda w, _: later(900.0) if w.now < 1_500 else delivered())
    world.plan(callback(f"cb-{n}") for n in range(40))
    bench = DeliveryHarness(world, slots=32)
    bench.run(lambda: world.now > 1_060)
    assert any(event == "circuit opened" for event, _ in world.lines)
    bench = DeliveryHarness(world, slots=32)
    committed: list[int] = []

    def look() -> None:
        if 1_300 < world.now < 1_500:
            committed.append(sum(world.committed[Partition("callbacks", n)] for n in range(2)))

    bench.run(lambda: world.now > 1_950 and not world.waiting(), look)
    assert set(committed) == {40}


def test_held_callbacks_use_up_no_probes_and_count_once() -> None:
    held = DeliveryAnswer(DeliveryKind.HELD, "its body was made for another target", None, 0.0)

    def answer(w: SimulatedReceivers, one: Callback) -> DeliveryAnswer:
        if one.callback_id.startswith("held-"):
            return held
        return refuses(404) if w.now < 1_600 else delivered()

    world = SimulatedReceivers(answer)
    world.plan(callback(f"cb-{n}") for n in range(5))
    bench = DeliveryHarness(world)

    def plan() -> None:
        if world.now > 1_050 and len(world.topic("callbacks")) < 45:
            world.plan(callback(f"held-{n}") for n in range(40))

    bench.run(lambda: world.now > 2_300, plan)
    probes = [a for a in world.attempts if 1_100 < a.at_s < 1_600 and not a.callback.callback_id.startswith("held-")]
    assert len(probes) > 75, "one each 5 s, but for moments in which all wait in a retry topic"
    assert set(world.outcomes()) == {f"cb-{n}" for n in range(5)}
    assert world.sent()["held-0"] > 3
    assert "deliverer: 40 callbacks are held" in bench.observe.readiness_notes()[-1]


def test_the_callbacks_in_memory_are_looked_at_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[float] = []
    world = SimulatedReceivers(lambda _, __: later(4.0))
    monkeypatch.setattr(DelivererObserver, "undelivered", lambda *_: looked.append(world.now))
    world.plan(callback(f"cb-{n}") for n in range(50))
    DeliveryHarness(world).run(lambda: world.now > 1_010)
    assert 5 <= len(looked) <= 11


def test_a_worker_that_has_lost_its_partitions_has_no_open_circuit_breaker() -> None:
    world = SimulatedReceivers(lambda _, __: refuses(404))
    world.plan(callback(f"cb-{n}") for n in range(20))
    bench = DeliveryHarness(world)
    reasons: dict[int, str | None] = {}

    def look() -> None:
        at = int(world.now)
        reasons.setdefault(at, bench.observe.readiness_failure())
        if at == 1_100 and bench.source._at:
            bench.source.revoke(bench.places)

    bench.run(lambda: world.now > 1_140, look)
    assert "circuit open" in str(reasons[1_099])
    assert "circuit open" not in str(reasons[1_139])
    assert bench.metrics.value(CAMPAIGNS_BLOCKED, status="open") == 0
    assert [event for event, _ in world.lines if event.startswith("circuit")] == ["circuit opened", "circuit closed"]


def test_a_closed_quota_of_the_worker_itself_is_no_failure() -> None:
    closed = DeliveryAnswer(DeliveryKind.NOT_SENT, "the request quota is used up", None, 0.0, 60.0)
    world = SimulatedReceivers(lambda w, _: closed if w.now < 1_600 else delivered())
    world.plan(callback(f"cb-{n}", f"k{n % 2}") for n in range(50))
    DeliveryHarness(world).run_dry()
    assert set(world.outcomes().values()) == {"DELIVERED"}
    assert {receipt["attempts"] for [receipt] in world.receipts().values()} == {1}
    assert not any(event in ("circuit opened", "campaign deliveries failing") for event, _ in world.lines)


def test_contacts_without_a_number_delay_no_other_contact_and_are_no_outage() -> None:
    no_address = DeliveryAnswer(DeliveryKind.REFUSED, "no value for phone of the contact list", None, 0.0)
    world = SimulatedReceivers(lambda _, one: no_address if one.callback_id.startswith("no") else delivered())
    world.plan(callback(f"no-{n}") for n in range(50))
    world.plan(callback(f"with-{n}") for n in range(5))
    DeliveryHarness(world).run_dry()
    assert Counter(world.outcomes().values()) == {"REFUSED": 50, "DELIVERED": 5}
    assert not any(event in ("circuit opened", "campaign deliveries failing") for event, _ in world.lines)
    assert max(attempt.at_s for attempt in world.attempts) < 1_010


def test_contacts_without_a_number_use_up_no_probe_of_an_outage() -> None:
    no_address = DeliveryAnswer(DeliveryKind.REFUSED, "no value for phone of the contact list", None, 0.0)

    def answer(world: SimulatedReceivers, one: Callback) -> DeliveryAnswer:
        if one.callback_id.startswith("no"):
            return no_address
        return refuses(404) if world.now < 1_000 + OUTAGE_S else delivered()

    world = SimulatedReceivers(answer)
    world.plan(callback(f"with-{n}") for n in range(40))
    world.plan(callback(f"no-{n}") for n in range(40))
    DeliveryHarness(world).run_dry()
    assert Counter(world.outcomes().values()) == {"REFUSED": 40, "DELIVERED": 40}
    probed = [at.at_s for at in world.attempts if at.callback.callback_id.startswith("with") and at.at_s > 1_005]
    assert max(after - before for before, after in pairwise(probed) if before < 1_600) <= 11


def test_a_callback_ends_seven_days_after_its_plan_whatever_the_breaker() -> None:
    world = SimulatedReceivers(lambda _, one: refuses(404) if one.campaign_id == "a" else later())
    days_ms = 7 * 86_400_000
    soon = world.now_ms - days_ms + 120_000
    world.plan(callback(f"a-{n}", "a", planned_at_ms=soon) for n in range(20))
    world.plan(callback(f"b-{n}", "b", planned_at_ms=soon) for n in range(20))
    DeliveryHarness(world).run_dry()
    outcomes = world.outcomes()
    attempted = {name: bool(count) for name, count in world.sent().items()}
    for name, outcome in outcomes.items():
        assert outcome == ("REFUSED" if name.startswith("a") and attempted.get(name) else "GAVE_UP")
    assert 120 <= world.now - 1_000 < 120 + max(DELAYS_S) + 60
    [rejected] = [one for one in world.topic("rejected") if one.key == b"a-0"]
    assert dict(rejected.headers)["stream-scorer-error-status"] == b"404"


def test_an_outage_has_two_lines_and_not_two_for_each_attempt() -> None:
    """Of the campaign's callbacks, some are never accepted; those in between are."""
    world = SimulatedReceivers(lambda _, one: refuses(400) if one.callback_id.startswith("bad") else delivered())
    fed: list[float] = [world.now]

    def feed() -> None:
        if world.now > fed[-1] + 0.3 and world.now < 1_240:
            fed.append(world.now)
            name = "bad" if len(fed) % 50 == 0 and world.now < 1_060 else "cb"
            world.plan([callback(f"{name}-{len(fed)}")])

    DeliveryHarness(world).run(lambda: world.now > 1_320 and not world.waiting(), feed)
    assert Counter(world.outcomes().values())["REFUSED"] >= 2
    failures = sum(attempt.callback.callback_id.startswith("bad") for attempt in world.attempts)
    events = [event for event, _ in world.lines if event.startswith("campaign deliveries")]
    assert failures > 20
    assert 2 <= len(events) <= 6
    assert events == ["campaign deliveries failing", "campaign deliveries recovered"] * (len(events) // 2)


def test_the_first_failure_of_a_campaign_is_one_line_with_status_and_remedy() -> None:
    world = SimulatedReceivers(lambda w, _: refuses(404) if w.now < 1_200 else delivered())
    world.plan(callback(f"cb-{n}", f"k{n % 2}") for n in range(50))
    DeliveryHarness(world).run_dry()
    failing = [fields for event, fields in world.lines if event == "campaign deliveries failing"]
    recovered = [fields for event, fields in world.lines if event == "campaign deliveries recovered"]
    assert sorted(fields["campaign_id"] for fields in failing) == ["k0", "k1"]
    assert sorted(fields["campaign_id"] for fields in recovered) == ["k0", "k1"]
    assert {(f["target"], f["status"], f["detail"], f["remedy"]) for f in failing} == {("t", 404, "HTTP 404", "look")}


def run_until_over(world: SimulatedReceivers, planned: set[str], campaign_ids: list[str | None]) -> None:
    """Run with new callbacks for each campaign: a 409 to a former attempt needs the acceptance of another one."""
    looked_at = [world.now]

    def is_over() -> bool:
        if world.now < looked_at[-1] + 100:
            return False
        world.plan(callback(f"more-{len(looked_at)}-{name}", name) for name in campaign_ids)
        looked_at.append(world.now)
        return planned <= world.outcomes().keys()

    DeliveryHarness(world).run(is_over)


@fuzz(20)
@given(st.randoms(use_true_random=False), st.integers(3, 60))
def test_whatever_fails_nothing_is_lost_doubled_or_refused_before_its_rounds(
    chance: random.Random, number: int
) -> None:
    """Each campaign fails differently and at other times, while workers are killed and partitions move."""
    names = ["a", "b", "c", None][: chance.randint(1, 4)]
    weights = {name: [chance.random() for _ in range(5)] for name in names}
    bad_until = {name: 1_000 + chance.choice([0, 60, 600]) for name in names}
    accepted: set[str] = set()

    def answer(world: SimulatedReceivers, one: Callback) -> DeliveryAnswer:
        if one.callback_id in accepted:
            return refuses(409)  # a receiver that rejects repeats
        if world.now < bad_until[one.campaign_id]:
            kinds = [refuses(404), later(), certificate_error(), gone(), later(chance.choice([2.0, 40.0]))]
            return chance.choices(kinds, weights[one.campaign_id])[0]
        accepted.add(one.callback_id)
        return delivered(chance.choice([5, 500]))

    world = SimulatedReceivers(answer)
    world.plan(callback(f"cb-{n}", chance.choice(names)) for n in range(number))
    for _ in range(chance.randrange(3)):
        world.endings = [chance.choice(["ok", "lost", "unknown"]) for _ in range(5)]
        until = world.now + chance.choice([5, 100, 700])
        bench = DeliveryHarness(world, max_uncommitted=chance.choice([10, 1_000]))

        def disturb(bench: DeliveryHarness = bench) -> None:
            if chance.random() < 0.01:
                places = [place for place in bench.places if chance.random() < 0.5]
                bench.source.revoke(places)
                bench.source.assign(place for place in places if place not in bench.source._at)

        bench.run(lambda until=until: world.now > until, disturb)
    run_until_over(world, planned := {f"cb-{n}" for n in range(number)}, names)
    outcomes = {name: outcome for name, outcome in world.outcomes().items() if name in planned}
    attempts: dict[str, list[float]] = defaultdict(list)
    for attempt in world.attempts:
        attempts[attempt.callback.callback_id].append(attempt.at_s)
    for name, outcome in outcomes.items():
        if outcome != "DELIVERED":
            assert len(attempts[name]) >= 3 * (len(DELAYS_S) + 1), "all its rounds"
            assert attempts[name][-1] - attempts[name][0] > sum(DELAYS_S)
        else:
            assert name in accepted


def test_a_blocked_campaign_has_a_series_with_its_failure_until_it_recovers() -> None:
    world = SimulatedReceivers(
        lambda w, one: refuses(404) if one.campaign_id == "bad" and w.now < 1_300 else delivered()
    )
    world.plan([callback("good-0", "good"), *(callback(f"cb-{n}", "bad") for n in range(20))])
    bench = DeliveryHarness(world)
    series = {"campaign_id": "bad", "target": "t", "http.response.status_code": 404, "remedy": "look", "status": "open"}
    during: set[tuple[float, float, tuple[str, ...]]] = set()

    def look() -> None:
        if 1_200 < world.now < 1_290:
            notes = tuple(bench.observe.readiness_notes())
            blocked = bench.metrics.value(CAMPAIGN_BLOCKED, **series)
            during.add((blocked, bench.metrics.value(CAMPAIGNS_BLOCKED, status="open"), notes))

    bench.run(lambda: world.now > 1_400 and not world.waiting(), look)
    note = "deliverer: campaign 'bad': circuit {}: HTTP 404; look"
    assert during <= {(1, 1, (note.format(status),)) for status in ("open", "half-open")}
    assert during
    assert bench.metrics.values(CAMPAIGN_BLOCKED) == []
    assert bench.metrics.value(CAMPAIGNS_BLOCKED, status="open") == 0
