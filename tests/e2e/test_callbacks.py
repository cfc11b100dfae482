"""``stream-scorer callbacks`` on a real broker, from the scores topic to a campaign manager with a delivery log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from callbacks_harness import CALLBACK, score
from worker_harness import QUICK_PROPERTIES, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from callbacks_harness import CallbacksHarness
    from worker_harness import WorkerProcess

    from stream_scorer.local.receiver import Receiver

pytestmark = pytest.mark.kafka


@pytest.fixture
def stage(make_campaign: Callable[..., CallbacksHarness], receiver: Receiver) -> CallbacksHarness:
    """A harness whose target is the receiver."""
    return make_campaign(receiver.environment())


def run_command(*arguments: str, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command as an operator does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STREAM_SCORER_", "GENESYS_"))}
    return subprocess.run(
        [sys.executable, "-m", "stream_scorer", *arguments],
        env={**kept, **settings, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def latencies_ms(receiver: Receiver, prefix: str) -> list[int]:
    """Return the latencies from plan to acceptance of the callbacks with this contact prefix, sorted."""
    found = []
    for delivery in receiver.callbacks().values():
        if delivery.contact_ids[0].startswith(prefix) and delivery.accepted_at_ms is not None:
            planned = time.mktime(time.strptime(delivery.planned_at[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
            planned_ms = round(planned * 1000) + int(delivery.planned_at[20:23])
            found.append(delivery.accepted_at_ms - planned_ms)
    return sorted(found)


class TestDelivery:
    def test_every_high_score_reaches_the_receiver_once(self, stage: CallbacksHarness, receiver: Receiver) -> None:
        stage.put(score(f"c{n}", n % 100 / 100, campaign_id=(None, "spring", "autumn")[n % 3]) for n in range(1000))
        worker = stage.start()
        stage.wait_receipts(250, needs=worker)
        assert stage.verify_receipts() == {"DELIVERED": 250}
        assert receiver.contacts() == {f"c{n}": 1 for n in range(1000) if n % 100 >= 75}
        stats = receiver.stats()
        assert (stats.repeats, stats.changed, stats.unverified) == (0, 0, 0)
        metrics = worker.admin("/metrics")
        assert metrics is not None
        assert 'outcome="delivered"' in metrics.text
        assert worker.ready()
        assert worker.stop() == 0, worker.log()
        assert receiver.config.secret not in worker.log()

    def test_a_killed_group_resumes_at_its_commits(self, stage: CallbacksHarness, receiver: Receiver) -> None:
        for life in range(3):
            stage.put(score(f"c{life}-{n}", campaign_id=f"k{n % 5}") for n in range(200))
            worker = stage.start(name="w")
            before = receiver.stats().contacts
            stage.wait(lambda before=before: receiver.stats().contacts > before, "new contacts", needs=worker)
            worker.kill()
        worker = stage.start(name="w")
        stage.wait_receipts(600, needs=worker)
        assert stage.verify_receipts() == {"DELIVERED": 600}
        stats = receiver.stats()
        assert (stats.contacts, stats.changed, stats.unverified) == (600, 0, 0)
        assert set(receiver.contacts().values()) == {1}

    def test_clean_joins_and_leaves_of_workers_repeat_nothing(
        self, stage: CallbacksHarness, receiver: Receiver
    ) -> None:
        receiver.add_fault(delay_ms=100, times=None)
        first = stage.start()
        stage.put(score(f"a{n}", campaign_id=f"k{n}") for n in range(150))
        stage.wait(lambda: receiver.stats().contacts > 20, "the first contacts", needs=first)
        second = stage.start()
        stage.wait(lambda: second.said("partition assigned"), "a rebalance", needs=second)
        stage.put(score(f"b{n}", campaign_id=f"k{n}") for n in range(150))
        assert first.stop() == 0, first.log()
        stage.wait_receipts(300, needs=second)
        assert stage.verify_receipts() == {"DELIVERED": 300}
        assert receiver.stats().repeats == 0
        assert second.stop() == 0

    def test_sigterm_waits_for_deliveries_in_flight(self, stage: CallbacksHarness, receiver: Receiver) -> None:
        receiver.add_fault(delay_ms=1500, times=None)
        stage.put(score(f"c{n}", campaign_id=f"k{n}") for n in range(10))
        worker = stage.start()
        stage.wait(lambda: receiver.stats().in_flight_max >= 5, "requests under way", needs=worker)
        assert worker.stop() == 0
        receipts = stage.receipts()
        assert len(receipts) == receiver.stats().callbacks >= 5
        receiver.clear_faults()
        successor = stage.start()
        stage.wait_receipts(10, needs=successor)
        assert receiver.stats().repeats == 0


def _requests(receiver: Receiver) -> int:
    return sum(receiver.stats().requests.values())


class TestReceiverOutages:
    def test_after_an_outage_the_receiver_gets_everything_once(
        self, stage: CallbacksHarness, receiver: Receiver
    ) -> None:
        receiver.add_fault(status=503, times=None)
        stage.put(score(f"c{n}", campaign_id=f"k{n % 3}") for n in range(300))
        worker = stage.start()
        stage.wait(lambda: len(stage.read(stage.tier(1))) >= 3, "all in the first tier", needs=worker)
        receiver.clear_faults()
        stage.wait_receipts(300, needs=worker)
        assert stage.verify_receipts() == {"DELIVERED": 300}
        stats = receiver.stats()
        assert (stats.contacts, stats.repeats, stats.changed) == (300, 0, 0)
        planned = {one["callback_id"]: one["body"] for one in stage.callbacks()}
        for tier in (1, 2):
            for record in stage.read(stage.tier(tier)):
                callback = CALLBACK.decode(record.value)
                assert planned[callback["callback_id"]] == callback["body"]
                rounds = record.headers["stream-scorer-failed-rounds"] or b""
                assert int(rounds) <= tier, "no round counts while a circuit breaker is open"

    # `make chaos` plays the others.
    @pytest.mark.parametrize("status", [302, *(pytest.param(one, marks=pytest.mark.slow) for one in (401, 404))])
    def test_an_outage_with_rejections_loses_nothing_and_is_logged_once(
        self, stage: CallbacksHarness, receiver: Receiver, status: int
    ) -> None:
        worker = stage.start(callbacks__max_contacts="1", callbacks__retry_delays_s="[0.2, 0.3, 0.4]")
        receiver.add_fault(status=status, times=None, headers={"Location": receiver.url})
        stage.put(score(f"c{n}", campaign_id=f"k{n % 3}") for n in range(200))
        stage.wait(lambda: f"HTTP {status}" in worker.why_not_ready(), "the open breaker", needs=worker)
        assert "circuit open: webhook http://127.0.0.1:" in worker.why_not_ready()
        asked = receiver.stats().requests[str(status)]
        stage.wait(lambda: receiver.stats().requests[str(status)] >= asked + 10, "probes", needs=worker)
        assert stage.receipts() == [], "longer than all rounds together, and none is refused"
        receiver.clear_faults()
        stage.wait_receipts(200, needs=worker)
        assert stage.verify_receipts() == {"DELIVERED": 200}
        assert receiver.stats().repeats == 0
        assert worker.ready()
        [opened] = worker.said("circuit opened")
        assert (opened["status"], opened["target"].split(":")[0]) == (status, "webhook http")
        assert opened["remedy"]
        assert len(worker.said("circuit closed")) == 1
        failing = [line["campaign_id"] for line in worker.said("campaign deliveries failing")]
        assert sorted(failing) == ["k0", "k1", "k2"]

    @pytest.mark.parametrize(
        ("kills", "delays_s"),
        [
            (4, "[0.5, 1, 1.5, 2]"),  # ten are those of the dialler's test
            pytest.param(200, "[2, 20, 120, 700]", marks=[pytest.mark.slow, pytest.mark.timeout(3_000)]),
        ],
    )
    def test_kills_during_an_outage_with_rejections_lose_and_reject_nothing(
        self, stage: CallbacksHarness, receiver: Receiver, kills: int, delays_s: str
    ) -> None:
        scores = 5 * kills
        stage.environment |= {
            "STREAM_SCORER_CALLBACKS__MAX_CONTACTS": "1",
            "STREAM_SCORER_CALLBACKS__RETRY_DELAYS_S": delays_s,
        }
        receiver.add_fault(status=404, times=None)
        stage.put(score(f"c{n}", campaign_id=f"k{n % 3}") for n in range(scores))
        worker = stage.start(name="killed")
        for kill in range(kills):
            receiver.clear_faults()
            receiver.add_fault(status=(400, 401, 404, 422, 302)[kill % 5], times=None)
            before = _requests(receiver)
            stage.wait(lambda before=before: _requests(receiver) >= before + 6, "attempts", needs=worker)
            worker.kill()
            worker = stage.start(name="killed")
        assert [one for one in stage.receipts() if one["outcome"] != "DELIVERED"] == []
        receiver.clear_faults()
        stage.wait_receipts(scores, needs=worker, limit_s=300)
        assert stage.verify_receipts() == {"DELIVERED": scores}
        assert receiver.stats().changed == 0

    def test_a_callback_is_given_up_and_logged_after_the_last_retry_topic(
        self, stage: CallbacksHarness, receiver: Receiver
    ) -> None:
        receiver.add_fault(status=500, campaign_id="spring", times=None)
        stage.put([score("a"), score("b", campaign_id="autumn")])
        worker = stage.start(callbacks__retry_delays_s="[0.2, 0.4]")
        stage.wait_receipts(2, needs=worker)
        assert stage.verify_receipts() == {"DELIVERED": 1, "GAVE_UP": 1}
        [given_up] = [receipt for receipt in stage.receipts() if receipt["outcome"] == "GAVE_UP"]
        assert (given_up["attempts"], given_up["http_status"]) == (9, 500)
        [rejected] = stage.read("callbacks_rejected")
        assert rejected.headers["stream-scorer-error-reason"] == b"gave_up"
        assert rejected.headers["stream-scorer-error-status"] == b"500"
        assert CALLBACK.decode(rejected.value)["contact_ids"] == ["a"]

    @pytest.mark.parametrize("status", [400, *(pytest.param(one, marks=pytest.mark.slow) for one in (302, 404))])
    def test_a_refusal_is_final_after_the_last_round(
        self, stage: CallbacksHarness, receiver: Receiver, status: int
    ) -> None:
        receiver.add_fault(status=status, campaign_id="spring", times=None, headers={"Location": receiver.url})
        stage.put([score("a"), score("b", campaign_id="autumn")])
        worker = stage.start(callbacks__retry_delays_s="[0.2, 0.4]")
        stage.wait_receipts(2, needs=worker)
        assert stage.verify_receipts() == {"DELIVERED": 1, "REFUSED": 1}
        [rejected] = stage.read("callbacks_rejected")
        assert rejected.headers["stream-scorer-error-reason"] == b"refused"
        assert receiver.stats().callbacks == 1
        assert receiver.stats().requests[str(status)] == 9

    def test_a_retry_after_is_kept(self, stage: CallbacksHarness, receiver: Receiver) -> None:
        receiver.add_fault(status=429, retry_after=7, contact_id="a")
        stage.put([score("a")])
        worker = stage.start()
        stage.wait_receipts(1, needs=worker)
        [delivery] = receiver.callbacks().values()
        assert delivery.accepted_at_ms is not None
        assert delivery.accepted_at_ms - delivery.first_at_ms >= 6_900
        assert delivery.attempts == 2
        passed = [len(stage.read(stage.tier(number))) for number in (1, 2, 3, 4)]
        assert passed[3] >= 1, "it waits in the longest tier that is not longer than its wait"
        assert sum(passed) <= 8, "and is written again a few times only"
        assert stage.verify_receipts() == {"DELIVERED": 1}

    def test_a_disabled_campaign_waits_and_the_others_continue(
        self, stage: CallbacksHarness, receiver: Receiver
    ) -> None:
        receiver.add_fault(status=410, campaign_id="ended", times=None)
        worker = stage.start(callbacks__max_contacts="1", callbacks__probe_interval_s="0.05")
        stage.put([score("e0", campaign_id="ended")])
        stage.wait(lambda: receiver.stats().requests.get("410"), "the first 410", needs=worker)
        stage.put(score(f"e{n}", campaign_id="ended") for n in range(1, 20))
        stage.put(score(f"c{n}", campaign_id=f"k{n % 3}") for n in range(100))
        stage.wait_receipts(100, needs=worker)
        assert worker.ready()
        readiness = worker.admin("/readyz")
        assert readiness is not None
        assert "campaign 'ended': switched off: HTTP 410" in readiness.text
        asked = receiver.stats().requests["410"]
        assert asked <= 20
        stage.wait(lambda: receiver.stats().requests["410"] >= asked + 2, "probes", needs=worker)
        assert {receipt["campaign_id"] for receipt in stage.receipts()} == {"k0", "k1", "k2"}
        receiver.clear_faults()
        stage.wait_receipts(120, needs=worker)
        assert stage.verify_receipts() == {"DELIVERED": 120}
        assert worker.said("circuit opened") == []

    # `make chaos` measures it, where no other test runs.
    @pytest.mark.parametrize("is_timed", [False, pytest.param(True, marks=pytest.mark.slow)])
    def test_a_campaign_that_hangs_does_not_delay_the_others(
        self, stage: CallbacksHarness, receiver: Receiver, *, is_timed: bool
    ) -> None:
        def flow(prefix: str, campaigns: list[str]) -> None:
            for n in range(60):
                stage.put(score(f"{prefix}{n}-{campaign}", campaign_id=campaign) for campaign in campaigns)
                time.sleep(0.05)  # a stream, not a burst: a wait for a slot shows as latency

        worker = stage.start(callbacks__max_contacts="1")
        stage.put([score("warm", campaign_id="a")])
        stage.wait_receipts(1, needs=worker)
        flow("alone", ["a", "b", "c"])
        stage.wait(lambda: len(latencies_ms(receiver, "alone")) == 180, "the run without", needs=worker)
        receiver.add_fault(campaign_id="hangs", hang=True, times=None)
        flow("beside", ["hangs", "a", "hangs", "b", "c"])
        done = lambda: sum("hangs" not in d.campaign_id for d in receiver.callbacks().values() if d.accepted) == 361  # noqa: E731
        stage.wait(done, "the run beside it", needs=worker)
        alone, beside = latencies_ms(receiver, "alone"), latencies_ms(receiver, "beside")
        assert len(beside) == 180
        p99_alone, p99_beside = alone[int(0.99 * len(alone))], beside[int(0.99 * len(beside))]
        if is_timed:
            assert p99_beside <= max(2 * p99_alone, p99_alone + 150), (p99_alone, p99_beside)
        assert beside[-1] < 15_000, "one waited for the time-out of a request that hangs"


class TestPlanning:
    def test_an_expired_score_is_not_delivered_and_has_its_receipt(
        self, stage: CallbacksHarness, receiver: Receiver
    ) -> None:
        old = int(time.time() * 1000) - 90_000_000
        stage.put([score("old", scored_at=old), score("older", scored_at=0), score("new")])
        worker = stage.start()
        stage.wait_receipts(3, needs=worker)
        assert stage.verify_receipts() == {"DELIVERED": 1, "EXPIRED": 2}
        assert receiver.contacts() == {"new": 1}
        [expired] = [receipt for receipt in stage.receipts() if receipt["outcome"] == "EXPIRED"]
        assert (expired["attempts"], expired["http_status"], sorted(expired["contact_ids"])) == (
            0,
            None,
            ["old", "older"],
        )

    def test_invalid_scores_and_callbacks_are_rejected(self, stage: CallbacksHarness, receiver: Receiver) -> None:
        stage.put_values("scores", [(b"k", b"nonsense"), (None, None)])
        stage.put([score("good"), score("x" * 300), score("wide", campaign_id="w" * 30_000)])
        for topic in ("callbacks", stage.tier(1), stage.tier(4)):
            stage.put_values(topic, [(b"k", topic.encode())])
        worker = stage.start("--from", "earliest")
        stage.wait(lambda: len(stage.read("callbacks_rejected")) == 7, "seven rejected records", needs=worker)
        stage.wait_receipts(1, needs=worker)
        reasons = sorted(one.headers["stream-scorer-error-reason"] or b"" for one in stage.read("callbacks_rejected"))
        assert reasons == [b"invalid_contact", b"too_large", *[b"undecodable"] * 5]
        values = {one.value for one in stage.read("callbacks_rejected")}
        assert {b"nonsense", None, stage.tier(4).encode()} <= values
        for one in stage.read("callbacks_rejected"):
            assert one.headers["stream-scorer-source"]
            assert one.headers["stream-scorer-error-detail"]
            assert one.headers["stream-scorer-error-timestamp"]
        assert receiver.contacts() == {"good": 1}

    def test_a_rate_limit_is_kept_and_logged(self, stage: CallbacksHarness, receiver: Receiver) -> None:
        stage.put(score(f"c{n}") for n in range(8))
        worker = stage.start(callbacks__max_contacts="1", callbacks__max_per_minute="5")
        stage.wait_receipts(5, needs=worker)
        stage.wait(lambda: worker.said("campaign rate limited"), "the warning", needs=worker)
        stage.wait(lambda: stage.read(stage.tier(1)) or stage.read(stage.tier(4)), "the others in a tier", needs=worker)
        assert receiver.stats().callbacks == 5


def the_line(worker: WorkerProcess, code: int) -> str:
    """Return its only output line after the exit with ``code``."""
    assert worker.exit_code() == code, worker.log()
    [line] = worker.errors()
    assert line.startswith("stream-scorer: ")
    assert "Traceback" not in worker.log()
    return line


class TestReporting:
    def test_no_url(self, stage: CallbacksHarness) -> None:
        assert "callbacks.url is missing" in the_line(stage.start(callbacks__url=None), 2)

    @pytest.mark.parametrize("kind", ["scores", "receipts"])
    def test_a_missing_topic(self, stage: CallbacksHarness, kind: str) -> None:
        line = the_line(stage.start(**{f"topics__{kind}": "no-such-topic"}), 1)
        assert "no-such-topic" in line
        assert "topics create" in line

    def test_a_session_timeout_rejected_by_the_broker(self, stage: CallbacksHarness) -> None:
        quick = {**QUICK_PROPERTIES, "session.timeout.ms": 900, "heartbeat.interval.ms": 300}
        line = the_line(stage.start(kafka__properties=json.dumps(quick)), 1)
        assert "session.timeout.ms must be between" in line

    def test_retry_delays_out_of_order(self, stage: CallbacksHarness) -> None:
        assert "ascending order" in the_line(stage.start(callbacks__retry_delays_s="[60, 30]"), 2)

    def test_a_new_group_beside_receipts_is_rejected_until_it_is_confirmed(
        self, stage: CallbacksHarness, receiver: Receiver
    ) -> None:
        stage.put([score("a")])
        worker = stage.start()
        stage.wait_receipts(1, needs=worker)
        assert worker.stop() == 0
        line = the_line(stage.start(callbacks__group_id="mistyped"), 1)
        assert "callbacks.group_id is mistyped" in line
        assert "--from" in line
        again = stage.start("--from", "latest", callbacks__group_id=f"{stage.group_id}-new")
        stage.wait(lambda: again.said("partition assigned"), "the start", needs=again)
        stage.put([score("b")])
        stage.wait(lambda: "b" in receiver.contacts(), "the new score", needs=again)

    def test_a_renamed_group_repeats_no_delivery_and_delivers_pending_callbacks(
        self, stage: CallbacksHarness, receiver: Receiver
    ) -> None:
        receiver.add_fault(status=503, campaign_id="slow", times=None)
        stage.put(score(f"a{n}", campaign_id=f"k{n}") for n in range(20))
        stage.put([score("w", campaign_id="slow")])
        worker = stage.start(callbacks__retry_delays_s="[1, 10, 60, 60]")
        stage.wait_receipts(20, needs=worker)
        stage.wait(lambda: stage.read(stage.tier(2)), "the one that fails, in the second tier", needs=worker)
        assert worker.stop() == 0
        receiver.clear_faults()
        renamed = f"{stage.group_id}-new"
        line = the_line(stage.start("--from", "earliest", callbacks__group_id=renamed), 1)
        assert "21 callbacks from its start on have a receipt or wait" in line
        assert "callbacks.group_id back" in line
        again = stage.start("--from", "latest", callbacks__group_id=renamed, callbacks__retry_delays_s="[1, 2, 3, 4]")
        stage.wait(lambda: again.said("partition assigned"), "the start", needs=again)
        stage.put([score("b")])
        stage.wait(lambda: {"b", "w"} <= receiver.contacts().keys(), "the new score, and what waited", needs=again)
        stage.wait_receipts(22, needs=again)
        assert receiver.stats().repeats == 0
        assert all(receipt["outcome"] == "DELIVERED" for receipt in stage.receipts())

    def test_a_renamed_group_plans_no_score_again_whose_callback_is_not_delivered_yet(
        self, stage: CallbacksHarness, receiver: Receiver
    ) -> None:
        receiver.add_fault(hang=True, times=None)
        stage.put(score(f"a{n}", campaign_id=f"k{n % 3}") for n in range(20))
        worker = stage.start()
        stage.wait(lambda: len(stage.callbacks()) >= 3, "the plan", needs=worker)
        worker.kill()
        receiver.clear_faults()
        line = the_line(stage.start("--from", "earliest", callbacks__group_id=f"{stage.group_id}-new"), 1)
        assert "callbacks from its start on are not delivered yet" in line
        assert "callbacks.group_id back" in line
        back = stage.start()
        stage.wait_receipts(20, needs=back)
        assert stage.verify_receipts() == {"DELIVERED": 20}
        assert receiver.contacts() == {f"a{n}": 1 for n in range(20)}

    def test_pending_callbacks_are_held_for_another_target_and_delivered_by_the_former_one(
        self, stage: CallbacksHarness, receiver: Receiver
    ) -> None:
        receiver.add_fault(status=503, times=None)
        stage.put(score(f"a{n}", campaign_id=f"k{n}") for n in range(5))
        delays = "[0.5, 1, 2, 4]"
        worker = stage.start(callbacks__retry_delays_s=delays)
        stage.wait(lambda: len(stage.read(stage.tier(1))) >= 5, "all in the first tier", needs=worker)
        assert worker.stop() == 0
        receiver.clear_faults()
        trial = stage.start(callbacks__target="log", callbacks__retry_delays_s=delays)

        def held() -> bool:
            readiness = trial.admin("/readyz")
            return readiness is not None and "callbacks are held" in readiness.text

        stage.wait(held, "the note", needs=trial)
        stage.wait(lambda: len(stage.read(stage.tier(4))) >= 5, "all held", needs=trial)
        assert trial.stop() == 0
        assert stage.receipts() == []
        [target] = {one.headers.get("stream-scorer-held") for one in stage.read(stage.tier(4))}
        assert (target or b"").startswith(b"webhook http://127.0.0.1:")
        back = stage.start(callbacks__retry_delays_s=delays)
        stage.wait_receipts(5, needs=back)
        assert stage.verify_receipts() == {"DELIVERED": 5}
        assert receiver.stats().repeats == 0

    def test_a_fatal_error_of_one_loop_stops_the_other_cleanly(
        self, stage: CallbacksHarness, receiver: Receiver
    ) -> None:
        stage.put([score("a")])
        worker = stage.start()
        stage.wait_receipts(1, needs=worker)
        assert worker.stop() == 0
        stage.commit_by_hand(stage.group_id + "-callbacks", "scores", 999)
        line = the_line(stage.start(), 1)
        assert "committed offset 999 is not in the log" in line
        assert {entry["loop"] for entry in stage.workers[-1].said("draining")} == {"planner", "deliverer"}
        assert receiver.stats().callbacks == 1

    def test_a_taken_admin_port_is_named(self, stage: CallbacksHarness, receiver: Receiver) -> None:
        port = receiver.base_url.rpartition(":")[2]
        line = the_line(stage.start(callbacks__admin_port=port), 1)
        assert port in line
        assert "callbacks.admin_port" in line


class TestReconcile:
    def test_reconcile_with_only_callbacks(self, stage: CallbacksHarness) -> None:
        stage.put(score(f"c{n}") for n in range(20))
        worker = stage.start()
        stage.wait_receipts(20, needs=worker)
        assert worker.stop() == 0
        topics = {f"STREAM_SCORER_TOPICS__{kind.upper()}": topic for kind, topic in stage.topics.items()}
        settings = {
            **topics,
            "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": stage.bootstrap_servers,
            "STREAM_SCORER_KAFKA__GROUP_ID": stage.group_id,
            "STREAM_SCORER_TOPICS__FEATURES": f"absent-{stage.group_id}",
        }
        held = run_command("reconcile", settings=settings)
        assert held.returncode == 0, held.stderr
        assert "has scored nothing here" in held.stdout
        assert "20 scores ≥ 0.75 = 20 delivered" in held.stdout
        # The features topic exists without a commit of the scoring group: its name may be mistyped.
        here = {f"STREAM_SCORER_TOPICS__{kind}": stage.topics["scores"] for kind in ("REVIEW", "REJECTED", "AUDIT")}
        here["STREAM_SCORER_TOPICS__FEATURES"] = stage.make_topic("features")
        mistyped = run_command("reconcile", settings=settings | here)
        assert mistyped.returncode == 3
        assert f"group {stage.group_id} has no commits" in mistyped.stderr
        assert "20 scores ≥ 0.75 = 20 delivered" in mistyped.stdout
        both = run_command("reconcile", settings=settings | here | {"STREAM_SCORER_KAFKA__GROUP_ID": "unused"})
        assert both.returncode == 3
        assert "group unused has no commits" in both.stderr
        unused = run_command("reconcile", settings=settings | {"STREAM_SCORER_KAFKA__GROUP_ID": "unused"})
        assert unused.returncode == 1
        assert "are missing" in unused.stderr
