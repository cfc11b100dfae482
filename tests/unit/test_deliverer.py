"""Outcomes of callbacks: the rules one by one, and the loop of the deliverer in simulated time."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from delivery_harness import (
    CALLBACKS,
    DELAYS_S,
    RETRY_TOPICS,
    START_MS,
    DeliveryHarness,
    SimulatedReceivers,
    callback,
    delivered,
    gone,
    later,
    read,
    refused,
)
from hypothesis import given
from hypothesis import strategies as st
from support_fuzz import fuzz

from stream_scorer.core.callbacks.records import callback_value
from stream_scorer.core.callbacks.retry_policy import (
    Completed,
    DeferReason,
    DeferredDelivery,
    Delivery,
    DeliveryRules,
    RetryNow,
    accept_conflict,
    after_attempt,
    defer_blocked,
    defer_failing,
    defer_rate_limited,
    route,
)
from stream_scorer.core.callbacks.types import CallbackOutcome, DeliveryAnswer, DeliveryKind, RefusedContact
from stream_scorer.core.records import SourceRecord
from stream_scorer.core.retry_topics import NotDue
from stream_scorer.runtime.metric_definitions import PROCESS_DURATION

if TYPE_CHECKING:
    import random

    from stream_scorer.core.callbacks.types import Callback

RULES = DeliveryRules((60.0, 600.0, 3600.0, 21600.0))


def delivery(
    tier: int = 0, rounds: int = 0, tries: int = 0, *, not_before_s: float = 0.0, written_s: float = 0.0
) -> Delivery:
    one = callback("a", not_before_ms=START_MS + round(not_before_s * 1000))
    record = SourceRecord("t", 0, 0, b"k", b"v", [], True, START_MS + round(written_s * 1000))
    return Delivery(record, one, tier, rounds, tries)


def after(
    one: Delivery, answer: DeliveryAnswer, rules: DeliveryRules = RULES, jitter: float = 0.5
) -> Completed | DeferredDelivery | RetryNow:
    step = after_attempt(one, answer, rules, now=100.0, now_ms=START_MS, jitter=jitter)
    assert isinstance(step, Completed | DeferredDelivery | RetryNow)
    return step


class TestAfterAttempt:
    def test_delivered_and_invalid_callbacks_are_final(self) -> None:
        unsendable = DeliveryAnswer(DeliveryKind.REFUSED, "its id cannot stand in a header", None, 0.0)
        for answer, outcome in ((delivered(), CallbackOutcome.DELIVERED), (unsendable, CallbackOutcome.REFUSED)):
            ended = after(delivery(), answer)
            assert isinstance(ended, Completed)
            assert (ended.outcome, ended.http_status, ended.callback.attempts) == (outcome, answer.status, 1)

    @pytest.mark.parametrize("status", [300, 302, 400, 401, 403, 404, 405, 408, 409, 413, 422, 451, 499])
    def test_a_refusal_is_retried_and_ends_refused_after_the_last_round(self, status: int) -> None:
        answer = DeliveryAnswer(DeliveryKind.REFUSED, "no", status, 50.0)
        assert isinstance(after(delivery(), answer), RetryNow)
        step = after(delivery(tries=2), answer)
        assert isinstance(step, DeferredDelivery)
        assert (step.retry_level, step.rounds, step.last_status) == (1, 1, status)
        ended = after(delivery(4, 4, tries=2), answer)
        assert isinstance(ended, Completed)
        assert (ended.outcome, ended.http_status) == (CallbackOutcome.REFUSED, status)

    def test_the_last_answer_decides_between_refused_and_given_up(self) -> None:
        one = replace(delivery(4, 4, tries=2), last_status=404)
        ended = after(one, later())
        assert isinstance(ended, Completed)
        assert ended.outcome is CallbackOutcome.GAVE_UP

    def test_no_round_is_counted_while_a_breaker_is_open_not_even_the_last(self) -> None:
        for tier in range(5):
            step = after_attempt(
                delivery(tier, tier, tries=2),
                refused(),
                RULES,
                now=100.0,
                now_ms=START_MS,
                jitter=0.5,
                is_blocked=True,
            )
            assert isinstance(step, DeferredDelivery)
            assert (step.retry_level, step.rounds, step.reason) == (1, tier, DeferReason.CIRCUIT_OPEN)
            assert step.callback.attempts == 1

    def test_a_callback_blocked_by_a_breaker_is_due_within_ten_minutes(self) -> None:
        for tier, level, wait_s in ((0, 1, 60), (1, 2, 600), (2, 2, 600), (4, 2, 600)):
            step = defer_blocked(delivery(tier, tier), RULES, START_MS)
            assert (step.retry_level, step.rounds, step.callback.attempts) == (level, tier, 0)
            assert step.callback.not_before_ms == START_MS + wait_s * 1000

    def test_a_rate_limit_of_the_receiver_counts_no_round(self) -> None:
        limited = DeliveryAnswer(DeliveryKind.TRY_LATER, "HTTP 429", 429, 50.0, 900.0)
        step = after(delivery(4, 4, tries=2), limited)
        assert isinstance(step, DeferredDelivery)
        assert (step.retry_level, step.rounds, step.reason) == (2, 4, DeferReason.RATE_LIMITED)

    def test_a_callback_over_our_own_quota_is_no_attempt(self) -> None:
        closed = DeliveryAnswer(DeliveryKind.NOT_SENT, "the request quota is used up", None, 0.0, 900.0)
        step = after(delivery(tier=2, rounds=1, tries=1), closed)
        assert isinstance(step, DeferredDelivery)
        assert (step.callback.attempts, step.rounds, step.reason) == (0, 1, DeferReason.RATE_LIMITED)
        assert (step.retry_level, step.callback.not_before_ms) == (2, START_MS + 900_000)

    def test_a_409_is_an_acceptance_only_after_an_attempt_without_a_response(self) -> None:
        conflict = DeliveryAnswer(DeliveryKind.REFUSED, "HTTP 409 (Conflict)", 409, 50.0, is_conflict=True)
        first = delivery()
        assert accept_conflict(first, conflict, is_accepting=True) is conflict
        lost = DeliveryAnswer(DeliveryKind.TRY_LATER, "time-out", None, 50.0, is_unanswered=True)
        second = after(first, lost)
        assert isinstance(second, RetryNow)
        assert accept_conflict(second.delivery, conflict, is_accepting=False).kind is DeliveryKind.DELIVERED
        third = after(second.delivery, later())  # what came in between does not matter
        assert isinstance(third, RetryNow)
        assert accept_conflict(third.delivery, conflict, is_accepting=False).kind is DeliveryKind.DELIVERED

    @pytest.mark.parametrize(
        ("status", "outcome"),
        [(None, CallbackOutcome.GAVE_UP), (404, CallbackOutcome.REFUSED), (503, CallbackOutcome.GAVE_UP)],
    )
    def test_it_ends_seven_days_after_its_plan(self, status: int | None, outcome: CallbackOutcome) -> None:
        one = replace(delivery(2, 1), last_status=status)
        days_ms = 7 * 86_400_000
        assert not isinstance(route(one, RULES, START_MS + days_ms - 1), Completed)
        ended = route(one, RULES, START_MS + days_ms)
        assert isinstance(ended, Completed)
        assert (ended.outcome, ended.http_status) == (outcome, status)

    def test_a_round_is_an_attempt_and_two_quick_ones(self) -> None:
        first = after(delivery(), later())
        assert isinstance(first, RetryNow)
        assert first.delivery.due == pytest.approx(100.5)
        second = after(first.delivery, later())
        assert isinstance(second, RetryNow)
        assert second.delivery.due == pytest.approx(102.0)
        third = after(second.delivery, later())
        assert isinstance(third, DeferredDelivery)
        assert (third.retry_level, third.rounds, third.reason) == (1, 1, DeferReason.RETRY)
        assert third.callback.attempts == 3
        assert third.callback.not_before_ms == START_MS + 60_000

    def test_jitter_is_a_quarter_to_both_sides(self) -> None:
        dues = [
            step.delivery.due - 100
            for j in (0.0, 0.999)
            if isinstance(step := after(delivery(), later(), jitter=j), RetryNow)
        ]
        assert dues == [pytest.approx(0.375), pytest.approx(0.625, abs=0.001)]

    @pytest.mark.parametrize(
        ("asked_s", "due"), [(-1.0, 100.5), (0.0, 100.5), (0.1, 100.1), (3.0, 103.0), (5.0, 105.0)]
    )
    def test_a_short_retry_after_is_waited_for_in_memory(self, asked_s: float, due: float) -> None:
        step = after(delivery(), later(asked_s))
        assert isinstance(step, RetryNow)
        assert step.delivery.due == due

    @pytest.mark.parametrize(("asked_s", "wait_s", "tier"), [(6.0, 60.0, 1), (61.0, 61.0, 1), (1e12, 86_400.0, 4)])
    def test_a_long_retry_after_moves_it_to_a_fitting_retry_topic(
        self, asked_s: float, wait_s: float, tier: int
    ) -> None:
        step = after(delivery(), later(asked_s))
        assert isinstance(step, DeferredDelivery)
        assert (step.retry_level, step.rounds) == (tier, 1)
        assert step.callback.not_before_ms == START_MS + wait_s * 1000

    def test_each_failed_round_moves_it_to_the_next_retry_topic_and_the_last_ends_it(self) -> None:
        for tier in range(1, 4):
            step = after(delivery(tier, tier, tries=2), later())
            assert isinstance(step, DeferredDelivery)
            assert (step.retry_level, step.rounds) == (tier + 1, tier + 1)
        ended = after(delivery(4, 4, tries=2), later())
        assert isinstance(ended, Completed)
        assert ended.outcome is CallbackOutcome.GAVE_UP

    def test_a_removed_retry_topic_is_delivered_and_then_given_up(self) -> None:
        rules = DeliveryRules((60.0,))
        ended = after(delivery(3, 3, tries=2), later(), rules)
        assert isinstance(ended, Completed)
        assert route(delivery(3, 3, not_before_s=100, written_s=0), rules, START_MS) == NotDue(START_MS + 60_000)

    def test_attempts_of_a_foreign_callback_fit_into_an_avro_int(self) -> None:
        for attempts, then in ((2**31 - 1, 2**31 - 1), (-5, 1)):
            one = Delivery(delivery().record, callback("a", attempts=attempts))
            ended = after(one, delivered())
            assert isinstance(ended, Completed)
            assert ended.callback.attempts == then


class TestRoute:
    def test_a_fresh_callback_is_always_due(self) -> None:
        fresh = delivery(not_before_s=1000.0)
        assert route(fresh, RULES, START_MS) is fresh

    def test_a_head_that_is_due_is_delivered(self) -> None:
        head = delivery(1, 1, not_before_s=60.0)
        assert route(head, RULES, START_MS + 60_000) is head

    def test_a_head_that_is_not_due_is_waited_for(self) -> None:
        assert route(delivery(1, 1, not_before_s=60.0), RULES, START_MS + 1) == NotDue(START_MS + 60_000)

    def test_a_retry_topic_waits_no_longer_than_its_delay(self) -> None:
        head = delivery(1, 0, not_before_s=3_000.0)
        assert route(head, RULES, START_MS + 59_999) == NotDue(START_MS + 60_000)
        step = route(head, RULES, START_MS + 60_000)
        assert isinstance(step, DeferredDelivery)
        assert (step.retry_level, step.rounds, step.reason, step.callback) == (2, 0, DeferReason.NOT_DUE, head.callback)

    def test_a_wait_of_days_needs_few_records(self) -> None:
        waiting, now_ms, written = delivery(1, 1, not_before_s=86_400.0), START_MS, 0
        while not isinstance(step := route(waiting, RULES, now_ms), Delivery):
            if isinstance(step, NotDue):
                now_ms = step.until_ms
            else:
                written += 1
                record = step.record._replace(timestamp_ms=now_ms)
                waiting = Delivery(record, step.callback, step.retry_level, step.rounds)
        assert now_ms == START_MS + 86_400_000
        assert written < 30

    def test_a_record_without_a_time_or_from_the_future_is_written_again_with_our_time(self) -> None:
        head = delivery(1, 1, not_before_s=3_000.0)
        for written_ms in (-1, START_MS + 900_000):
            odd = Delivery(head.record._replace(timestamp_ms=written_ms), head.callback, 1, 1)
            assert isinstance(route(odd, RULES, START_MS), DeferredDelivery)

    def test_a_due_time_beyond_the_longest_wait_is_ignored(self) -> None:
        head = delivery(1, 1, not_before_s=365 * 86_400.0)
        assert route(head, RULES, START_MS) is head

    def test_a_removed_retry_topic_waits_for_the_longest_configured_delay(self) -> None:
        rules = DeliveryRules((1.0,))
        head = delivery(4, 3, not_before_s=600.0)
        assert route(head, rules, START_MS + 999) == NotDue(START_MS + 1_000)
        assert route(head, rules, START_MS + 1_000) is head

    def test_a_deferral_counts_neither_attempt_nor_round(self) -> None:
        for came_from, rounds, tier in ((0, 0, 1), (1, 0, 2), (1, 1, 2), (2, 3, 3), (4, 4, 4)):
            step = defer_failing(delivery(came_from, rounds), RULES, START_MS)
            assert (step.retry_level, step.rounds, step.callback.attempts) == (tier, rounds, 0)
            assert step.callback.not_before_ms == START_MS + RULES.delay_s(tier) * 1000

    def test_a_deferral_does_not_count_a_started_round_even_the_last(self) -> None:
        for rounds in (0, 3, 4):
            step = defer_failing(delivery(rounds, rounds, tries=2), RULES, START_MS)
            assert (step.retry_level, step.rounds) == (min(rounds + 1, 4), rounds)

    @pytest.mark.parametrize(("wait_s", "tier"), [(3.0, 1), (60.0, 1), (599.0, 1), (600.0, 2), (1e6, 4)])
    def test_a_rate_limit_uses_the_longest_retry_topic_within_its_wait(self, wait_s: float, tier: int) -> None:
        step = defer_rate_limited(delivery(), RULES, START_MS, wait_s)
        assert (step.retry_level, step.rounds, step.callback.attempts) == (tier, 0, 0)
        assert step.callback.not_before_ms == START_MS + wait_s * 1000


def always(answer: DeliveryAnswer) -> SimulatedReceivers:
    return SimulatedReceivers(lambda _world, _callback: answer)


class TestDelivererLoop:
    def test_every_callback_gets_its_receipt(self) -> None:
        world = always(delivered())
        world.plan(callback(f"cb-{n}", f"k{n % 3}") for n in range(50))
        DeliveryHarness(world).run_dry()
        assert world.outcomes() == {f"cb-{n}": "DELIVERED" for n in range(50)}
        assert set(world.sent().values()) == {1}
        assert world.topic("rejected") == []

    def test_a_rejected_callback_is_on_the_rejected_topic_unchanged(self) -> None:
        world = always(refused())
        world.plan([callback("a")])
        DeliveryHarness(world).run_dry()
        assert world.outcomes() == {"a": "REFUSED"}
        [rejected] = world.topic("rejected")
        [last] = world.topic(RETRY_TOPICS[-1])
        assert (rejected.key, rejected.value) == (last.key, last.value)
        headers = dict(rejected.headers)
        assert headers["stream-scorer-error-reason"] == b"refused"
        assert headers["stream-scorer-error-status"] == b"400"
        assert headers["stream-scorer-error-detail"] == b"HTTP 400"
        assert headers["stream-scorer-source"] == last.source.encode()
        assert b"T" in (headers["stream-scorer-error-timestamp"] or b"")

    def test_after_the_last_retry_topic_it_is_given_up(self) -> None:
        world = always(later())
        world.plan([callback("a")])
        DeliveryHarness(world).run_dry()
        assert world.outcomes() == {"a": "GAVE_UP"}
        [receipt] = world.receipts()["a"]
        assert (receipt["attempts"], receipt["http_status"]) == (12, 503)
        assert [len(world.topic(tier)) for tier in RETRY_TOPICS] == [1, 1, 1]
        starts = [attempt.at_s for attempt in world.attempts[::3]]
        gaps = [second - first for first, second in itertools.pairwise(starts)]
        assert gaps == [pytest.approx(delay + 2.6, abs=1.2) for delay in DELAYS_S]
        assert dict(world.topic("rejected")[0].headers)["stream-scorer-error-reason"] == b"gave_up"

    def test_an_invalid_callback_is_rejected_byte_for_byte(self) -> None:
        world = always(delivered())
        for topic in ("callbacks", "retry-2"):
            world.write(topic, b"k", b"nonsense", [("h", b"1")], 0)
        world.write("callbacks", None, None, (), 0)
        world.plan([callback("a")])
        DeliveryHarness(world).run_dry()
        rejected = world.topic("rejected")
        assert Counter((one.key, one.value) for one in rejected) == {(b"k", b"nonsense"): 2, (None, None): 1}
        assert {dict(one.headers)["stream-scorer-error-reason"] for one in rejected} == {b"undecodable"}
        assert dict(rejected[0].headers)["h"] == b"1"
        assert world.outcomes() == {"a": "DELIVERED"}

    def test_new_callbacks_do_not_wait_for_a_retry_topic(self) -> None:
        world = SimulatedReceivers(lambda _, one: later() if one.callback_id == "bad" else delivered())
        world.plan([callback("bad", "x"), *(callback(f"cb-{n}") for n in range(20))])
        bench = DeliveryHarness(world)
        bench.run(lambda: len(world.receipts()) == 20)
        assert world.now < 1_000.0 + DELAYS_S[0], "the others are not delayed"

    def test_a_disabled_campaign_is_only_probed_and_nothing_is_lost(self) -> None:
        world = SimulatedReceivers(
            lambda w, one: gone() if one.campaign_id == "ended" and w.now < 1_900 else delivered()
        )
        world.plan(callback(f"off-{n}", "ended") for n in range(30))
        world.plan(callback(f"cb-{n}") for n in range(100))
        bench = DeliveryHarness(world)
        notes: set[str] = set()
        fed: list[float] = []

        def look() -> None:
            assert bench.observe.readiness_failure() in (None, "deliverer: draining")
            notes.update(bench.observe.readiness_notes())
            if world.now > 1_500 and not fed:
                fed.append(world.now)
                world.plan(callback(f"late-{n}") for n in range(100))

        bench.run(lambda: not world.waiting(), look)
        assert set(world.outcomes().values()) == {"DELIVERED"}
        assert len(world.outcomes()) == 230
        assert notes == {"deliverer: campaign 'ended': switched off: HTTP 410; end the campaign"}
        assert world.last_sent("cb-") - 1_000 < 3
        assert world.last_sent("late-") - fed[0] < 3
        probes = [attempt for attempt in world.attempts if attempt.callback.campaign_id == "ended"]
        began = [attempt for attempt in probes if attempt.at_s < 1_010]
        assert len(began) <= 8, "only deliveries in flight"
        later_ones = [attempt.at_s for attempt in probes[len(began) :] if attempt.at_s < 1_900]
        assert [at - 1_000 for at in later_ones] == [
            pytest.approx(n * 300, abs=95) for n in (1, 2, 3)[: len(later_ones)]
        ]
        assert 2 <= len(later_ones) <= 3, "one in 60 intervals"
        assert [event for event, _ in world.lines if event.startswith("circuit")] == []

    def test_a_lost_probe_is_replaced(self) -> None:
        world = SimulatedReceivers(lambda w, _: gone() if w.now < 1_100 else delivered())
        world.plan(callback(f"cb-{n}") for n in range(20))
        bench = DeliveryHarness(world)
        done: list[int] = []

        def rebalance() -> None:
            if world.now > 1_010 and not done:
                done.append(1)
                bench.source.lose(bench.places)
                bench.source.assign(bench.places)

        bench.run(lambda: not world.waiting(), rebalance)
        assert len(world.outcomes()) == 20


def test_a_revocation_writes_the_receipts_rejected_by_the_previous_rebalance() -> None:
    """Otherwise the new owner of the partitions repeats these deliveries."""
    world = SimulatedReceivers(lambda *_: delivered())
    world.plan(callback(f"cb-{n}") for n in range(4))
    world.endings = ["stale"]
    bench = DeliveryHarness(world)
    left: list[int] = []

    def rebalance() -> None:
        if not world.endings and not left:
            bench.source.revoke(bench.places)
            left.append(world.waiting())
            bench.source.assign(bench.places)

    bench.run(lambda: bool(left), rebalance)
    assert left == [0]


class TestIsolation:
    def test_a_hanging_campaign_leaves_the_others_their_slots(self) -> None:
        world = SimulatedReceivers(
            lambda _, one: later(latency_ms=10_000) if one.campaign_id == "hangs" else delivered(20)
        )
        for n in range(200):
            world.plan([callback(f"hang-{n}", "hangs"), callback(f"cb-{n}", f"k{n % 4}")])
        bench = DeliveryHarness(world, slots=32)
        good = {f"cb-{n}" for n in range(200)}
        bench.run(lambda: good <= world.sent().keys())
        assert world.last_sent("cb-") - 1_000 < 3.0
        assert bench.pool.most <= 32

    def test_many_hanging_campaigns_leave_half_of_the_slots(self) -> None:
        hangs = lambda one: (one.campaign_id or "").startswith("hangs")  # noqa: E731
        world = SimulatedReceivers(lambda _, one: later(latency_ms=10_000) if hangs(one) else delivered(20))
        world.plan(callback(f"hang-{n}", f"hangs-{n % 40}") for n in range(400))
        bench = DeliveryHarness(world, slots=32)
        fed: list[float] = []

        def feed() -> None:
            if world.now > 1_030 and len(fed) < 100:  # by now it is known of which campaigns nothing comes
                fed.append(world.now)
                world.plan([callback(f"cb-{len(fed)}", f"k{len(fed) % 7}")])

        bench.run(lambda: world.sent().keys() >= {f"cb-{n}" for n in range(1, 101)}, feed)
        waits = [
            attempt.at_s - fed[int(attempt.callback.callback_id[3:]) - 1]
            for attempt in world.attempts
            if attempt.callback.callback_id.startswith("cb-")
        ]
        assert max(waits) <= 0.5, "the longest step of the simulated clock"

    def test_a_failing_campaign_never_fills_the_window_of_others(self) -> None:
        world = SimulatedReceivers(
            lambda _, one: later(latency_ms=10_000) if one.campaign_id == "hangs" else delivered(20)
        )
        world.plan(callback(f"hang-{n}", "hangs") for n in range(500))
        world.plan(callback(f"cb-{n}") for n in range(50))
        bench = DeliveryHarness(world, slots=32, max_uncommitted=100)
        good = {f"cb-{n}" for n in range(50)}
        bench.run(lambda: good <= world.sent().keys())
        assert world.last_sent("cb-") - 1_000 < 30
        moved = [read(record) for record in world.topic("retry-1")]
        assert moved
        untried = [one for one in moved if one.attempts == 0]
        assert untried, "those that only waited were put off without an attempt"
        assert {one.campaign_id for one in moved} == {"hangs"}

    @pytest.mark.parametrize(("topic", "numbers"), [("retry-1", (0, 1)), ("callbacks", (0,))])
    def test_partitions_with_a_hanging_head_leave_capacity_for_others(
        self, topic: str, numbers: tuple[int, ...]
    ) -> None:
        world = SimulatedReceivers(
            lambda _, one: later(latency_ms=10_000) if one.campaign_id == "hangs" else delivered(20)
        )
        for n in range(600):
            value = CALLBACKS.encode(callback_value(callback(f"hang-{n}", "hangs")))
            world.write(topic, b"k", value, (), numbers[n % len(numbers)])
        bench = DeliveryHarness(world, slots=32, max_uncommitted=200)
        fed: list[float] = []

        def feed() -> None:
            if len(fed) < 400 and world.now - 1_000 > len(fed) / 10:
                fed.append(world.now)
                value = CALLBACKS.encode(callback_value(callback(f"cb-{len(fed) - 1}")))
                world.write("callbacks", b"k", value, (), 1)

        bench.run(lambda: len(fed) == 400 and world.now > fed[-1] + 5, feed)
        waits = [
            at.at_s - fed[int(at.callback.callback_id[3:])]
            for at in world.attempts
            if at.callback.campaign_id != "hangs"
        ]
        assert len(waits) == 400
        assert max(waits) <= 0.5, "the longest step of the simulated clock"
        moved = {read(record).campaign_id for tier in RETRY_TOPICS for record in world.topic(tier)}
        assert moved == {"hangs"}

    def test_a_full_partition_is_resumed_and_nothing_is_skipped(self) -> None:
        world = SimulatedReceivers(
            lambda w, one: later(latency_ms=10_000) if one.campaign_id == "hangs" and w.now < 1_060 else delivered(20)
        )
        world.plan(callback(f"cb-{n}", "hangs" if n % 3 else "well") for n in range(900))
        DeliveryHarness(world, slots=32, max_uncommitted=60).run_dry()
        assert world.outcomes() == {f"cb-{n}": "DELIVERED" for n in range(900)}

    def test_a_healthy_backlog_of_one_campaign_is_never_deferred(self) -> None:
        world = always(delivered(1_500))
        world.plan(callback(f"cb-{n}") for n in range(400))
        DeliveryHarness(world, slots=32, max_uncommitted=100).run_dry()
        assert [len(world.topic(tier)) for tier in RETRY_TOPICS] == [0, 0, 0]
        assert len(world.outcomes()) == 400

    def test_one_campaign_alone_has_half_of_the_slots(self) -> None:
        world = always(delivered(500))
        world.plan(callback(f"cb-{n}") for n in range(100))
        bench = DeliveryHarness(world, slots=32)
        bench.run_dry()
        assert bench.pool.most == 16


class TestQuota:
    def test_callbacks_over_the_quota_of_the_target_wait_in_memory(self) -> None:
        world = always(delivered(500))
        world.plan(callback(f"cb-{n}", f"k{n % 2}") for n in range(200))
        bench = DeliveryHarness(world, slots=32, max_uncommitted=100)
        world.allowance = 0
        most: list[int] = []

        def refill() -> None:
            world.allowance = 6 if world.now > 1_030 else 0
            most.append(bench.dispatcher.in_flight)

        bench.run(lambda: not world.waiting(), refill)
        assert max(most) == 6
        assert world.attempts[0].at_s > 1_030
        assert [len(world.topic(tier)) for tier in RETRY_TOPICS] == [0, 0, 0]
        assert len(world.outcomes()) == 200


class TestRateLimit:
    def test_the_rate_limit_is_kept_in_every_minute_and_none_is_lost(self) -> None:
        world = always(delivered())
        world.plan(callback(f"cb-{n}", "fast") for n in range(130))
        world.plan([callback("other", "slow")])
        DeliveryHarness(world, max_per_minute=20).run_dry()
        assert set(world.outcomes().values()) == {"DELIVERED"}
        assert len(world.outcomes()) == 131
        times = [attempt.at_s for attempt in world.attempts if attempt.callback.campaign_id == "fast"]
        assert max(sum(start <= at < start + 60 for at in times) for start in times) == 20
        assert world.now - 1_000 < 60 * 9, "the ceiling is used"
        assert [fields["campaign_id"] for event, fields in world.lines if event == "campaign rate limited"] == ["fast"]
        assert all(receipt["attempts"] == 1 for found in world.receipts().values() for receipt in found)

    def test_a_retry_after_a_rate_limit_has_all_its_retry_topics(self) -> None:
        world = SimulatedReceivers(lambda _, one: later() if one.callback_id == "cb-9" else delivered())
        world.plan(callback(f"cb-{n}") for n in range(10))
        DeliveryHarness(world, max_per_minute=5).run_dry()
        assert Counter(world.outcomes().values()) == {"DELIVERED": 9, "GAVE_UP": 1}
        assert world.sent()["cb-9"] == 12


class TestCampaignPause:
    """A 429 pauses all deliveries of the campaign that received it."""

    @staticmethod
    def limited(
        world: SimulatedReceivers, taken: list[float], per_s: int, retry_after_s: float | None
    ) -> DeliveryAnswer:
        if sum(world.now - at < 1 for at in taken[-per_s:]) >= per_s:
            return DeliveryAnswer(DeliveryKind.TRY_LATER, "HTTP 429", 429, 20.0, retry_after_s)
        taken.append(world.now)
        return delivered(20)

    @pytest.mark.parametrize(
        ("retry_after_s", "max_uncommitted"), [(2.0, 10_000), (None, 10_000), (2.0, 200), (20.0, 10_000)]
    )
    def test_a_rate_limited_receiver_gets_everything(self, retry_after_s: float | None, max_uncommitted: int) -> None:
        taken: list[float] = []
        world = SimulatedReceivers(
            lambda w, one: self.limited(w, taken, 20, retry_after_s) if one.campaign_id == "much" else delivered(20)
        )
        world.plan(callback(f"cb-{n}", "much") for n in range(1_000))
        world.plan(callback(f"other-{n}", "other") for n in range(30))
        DeliveryHarness(world, slots=32, max_uncommitted=max_uncommitted).run_dry()
        assert set(world.outcomes().values()) == {"DELIVERED"}
        assert len(world.outcomes()) == 1_030
        refused = len(world.attempts) - 1_030
        assert refused < 400, "not every slot once in each pause"
        if max_uncommitted > 1_000:  # else it is also how long it takes to read them
            assert world.last_sent("other-") - 1_000 < 2, "others are not left alone"

    def test_nothing_is_sent_before_the_time_and_one_first_after_it(self) -> None:
        asks_until = 1_020.0
        world = SimulatedReceivers(lambda w, _: later(3.0) if w.now < asks_until else delivered(200))
        world.plan(callback(f"cb-{n}") for n in range(100))
        bench = DeliveryHarness(world, slots=32)
        bench.run_dry()
        times = [attempt.at_s for attempt in world.attempts]
        first = sum(at < 1_001 for at in times)
        assert first <= 16, "deliveries in flight"
        later_times = times[first:]
        gaps = [second - one for one, second in itertools.pairwise([times[0], *later_times]) if second < asks_until + 3]
        assert min(gaps[:3]) >= 3, "one request in each pause"
        opened = next(at for at in times if at >= asks_until)
        assert sum(opened <= at < opened + 0.2 for at in times) == 1, "then one, and the others when that succeeded"
        assert set(world.outcomes().values()) == {"DELIVERED"}

    def test_a_long_pause_is_spent_in_a_retry_topic_without_counting_a_round(self) -> None:
        world = SimulatedReceivers(lambda w, _: later(100.0) if w.now < 1_100 else delivered())
        world.plan(callback(f"cb-{n}") for n in range(100))
        DeliveryHarness(world, slots=4).run_dry()
        assert set(world.outcomes().values()) == {"DELIVERED"}
        attempts = Counter(found[0]["attempts"] for found in world.receipts().values())
        assert attempts[1] >= 96
        assert sum(attempts.values()) == 100
        assert not [at for at in world.attempts if 1_001 < at.at_s < 1_100]


class TestExactlyOnce:
    def test_a_killed_deliverer_repeats_the_same_bytes_and_no_receipt(self) -> None:
        world = always(delivered(100))
        world.plan(callback(f"cb-{n}") for n in range(60))
        for kill_after in (10, 30, 50):
            DeliveryHarness(world).kill_when(lambda kill_after=kill_after: len(world.attempts) >= kill_after)
        DeliveryHarness(world).run_dry()
        assert len(world.outcomes()) == 60
        bodies: dict[str, set[bytes]] = {}
        for attempt in world.attempts:
            bodies.setdefault(attempt.callback.callback_id, set()).add(attempt.callback.body)
        assert all(len(found) == 1 for found in bodies.values())

    def test_delivered_callbacks_are_not_repeated_after_a_revocation(self) -> None:
        world = always(delivered(100))
        world.plan(callback(f"cb-{n}") for n in range(30))
        world.endings = ["lost"] * 3
        bench = DeliveryHarness(world)
        done: list[int] = []

        def lose() -> None:
            if len(world.attempts) >= 12 and not done:
                done.append(1)
                bench.source.lose(bench.places)
                bench.source.assign(bench.places)

        bench.run(lambda: not world.waiting(), lose)
        assert len(world.outcomes()) == 30
        assert set(world.sent().values()) == {1}

    @fuzz(60)
    @given(st.randoms(use_true_random=False), st.integers(1, 40), st.sampled_from([None, 5]))
    def test_every_callback_has_exactly_one_outcome(
        self, chance: random.Random, number: int, max_per_minute: int | None
    ) -> None:
        odds = [chance.random() for _ in range(4)]

        def answer(world: SimulatedReceivers, _: Callback) -> DeliveryAnswer:
            if world.now > 2_000:
                return delivered()  # it all has to come to an end
            kinds = [
                delivered(chance.choice([5, 500, 9_000])),
                later(chance.choice([None, None, 0.0, 4.0, 20.0, 200.0]), chance.choice([5, 9_000])),
                refused(),
                gone(),
            ]
            return chance.choices(kinds, [*odds[:3], odds[3] / 10])[0]

        world = SimulatedReceivers(answer)
        world.plan(callback(f"cb-{n}", chance.choice([None, "a", "b", "c"])) for n in range(number))
        for _ in range(chance.randrange(4)):
            world.endings = [chance.choice(["ok", "lost", "unknown"]) for _ in range(10)]
            life_s = chance.choice([1, 20, 200])
            dies_at = world.now + life_s
            bench = DeliveryHarness(world, max_per_minute=max_per_minute, max_uncommitted=chance.choice([10, 1_000]))

            def disturb(bench: DeliveryHarness = bench) -> None:
                if chance.random() < 0.02:
                    places = [place for place in bench.places if chance.random() < 0.5]
                    chance.choice([bench.source.lose, bench.source.revoke])(places)
                    bench.source.assign(place for place in places if place not in bench.source._at)

            if chance.random() < 0.5:
                bench.kill_when(lambda dies_at=dies_at: world.now > dies_at)
            else:
                bench.run(lambda dies_at=dies_at: world.now > dies_at, disturb)
        DeliveryHarness(world, max_per_minute=max_per_minute).run_dry()
        outcomes = world.outcomes()
        assert outcomes.keys() == {f"cb-{n}" for n in range(number)}
        ends = Counter(outcomes.values())
        assert len(world.topic("rejected")) == ends["REFUSED"] + ends["GAVE_UP"]
        bodies = {(attempt.callback.callback_id, attempt.callback.body) for attempt in world.attempts}
        assert len(bodies) == len({callback_id for callback_id, _ in bodies})
        for callback_id, outcome in outcomes.items():
            if outcome != "EXPIRED":
                assert world.sent()[callback_id] >= 1


def test_processing_lasts_from_the_first_attempt_to_the_commit() -> None:
    answers = [later(latency_ms=3_000), delivered(1_000)]
    world = SimulatedReceivers(lambda _, _one: answers.pop(0))
    world.plan([callback("slow")])
    bench = DeliveryHarness(world)
    bench.run_dry()
    # An attempt of 3 s, half a second of patience, one of 1 s; then at most a commit's interval and a step or two.
    [duration_s] = bench.metrics.values(PROCESS_DURATION, loop="deliverer")
    assert 4.5 <= duration_s < 5.5


def test_a_deferral_without_an_attempt_is_not_processing() -> None:
    assert defer_failing(delivery(), RULES, START_MS).began is None
    assert defer_failing(delivery().attempted_at(7.0).attempted_at(9.0), RULES, START_MS).began == 7.0


# --- contacts that are refused alone


def three(name: str) -> Callback:
    return callback(
        name,
        sources=tuple(f"scores/0/{name}-{number}" for number in range(3)),
        event_ids=("e0", "e1", "e2"),
        contact_ids=("c0", "c1", "c2"),
        threshold=0.75,
    )


def divided(*refusals: RefusedContact, contacts: int = 3) -> DeliveryAnswer:
    kind = DeliveryKind.REFUSED if len(refusals) == contacts else DeliveryKind.DELIVERED
    return DeliveryAnswer(kind, "HTTP 200", 200, 50.0, refused=refusals)


def test_contacts_rejected_individually_have_receipts_of_their_own() -> None:
    refusals = (
        RefusedContact(0, "no_address", "no value for phone of the contact list", None),
        RefusedContact(2, "refused", "HTTP 400 (Bad Request)", 400),
    )
    world = SimulatedReceivers(lambda _, one: divided(*refusals) if one.callback_id == "part" else delivered())
    world.plan([three("part"), three("whole")])
    bench = DeliveryHarness(world)
    bench.run_dry()
    receipts = world.receipts()
    assert [len(receipts[name]) for name in ("part", "whole")] == [3, 1]
    assert [
        (one["sources"], one["event_ids"], one["contact_ids"], one["outcome"], one["http_status"], one["threshold"])
        for one in receipts["part"]
    ] == [
        (["scores/0/part-0"], ["e0"], ["c0"], "REFUSED", None, 0.75),
        (["scores/0/part-1"], ["e1"], ["c1"], "DELIVERED", 200, 0.75),
        (["scores/0/part-2"], ["e2"], ["c2"], "REFUSED", 400, 0.75),
    ]
    [dead] = world.topic("rejected")
    assert (dead.key, dead.value) == (b"part", CALLBACKS.encode(callback_value(three("part"))))
    headers = dict(dead.headers)
    assert headers["stream-scorer-error-reason"] == b"no_address"
    assert headers["stream-scorer-error-status"] == b"400"
    detail = (headers["stream-scorer-error-detail"] or b"").decode()
    assert detail == (
        "2 of 3 contacts are refused: 1 no_address: no value for phone of the contact list;"
        " 1 refused: HTTP 400 (Bad Request)"
    )
    warned = [fields for event, fields in world.lines if event == "contacts refused"]
    assert [(fields["reason"], fields["contacts"]) for fields in warned] == [("no_address", 1), ("refused", 1)]
