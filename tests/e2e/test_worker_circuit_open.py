"""Open and throttled circuit breakers on the real stack: /readyz, metrics, and one log line for each change."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from output_verifier import verify_outputs
from scoring_harness import contact, contacts, wait_until
from support_fast import FastHarness, run_clocks_fast

from stream_scorer.kafka.consumer.group_consumer import GroupConsumer
from stream_scorer.wiring import service as wiring

if TYPE_CHECKING:
    from kafka_fixture import Broker
    from worker_harness import WorkerHarness, WorkerProcess

pytestmark = pytest.mark.kafka

LINE = re.compile(
    r"(?P<state>circuit open|throttled): (?P<reason>.+); since (?P<since>\S+Z) \((?P<for_s>\d+) s\); "
    r"next (?P<what>\w+) in (?P<next_s>\d+) s"
)


def readyz(worker: WorkerProcess) -> dict[str, Any]:
    """The parts of the line of /readyz; empty while the breaker is closed."""
    found = LINE.fullmatch(worker.why_not_ready())
    return {} if found is None else found.groupdict()


def sample(worker: WorkerProcess, name: str, label: str) -> float | None:
    """Return one value of /metrics by name and one label."""
    answer = worker.admin("/metrics")
    assert answer is not None
    lines = [line for line in answer.text.splitlines() if line.startswith(f"{name}{{") and label in line]
    return float(lines[0].rsplit(" ", 1)[1]) if lines else None


def breaker_events(worker: WorkerProcess) -> list[tuple[str, str, str]]:
    """The log events of the circuit breaker: event, reason, and the status in the message."""
    lines = [line for line in worker.log_lines() if str(line.get("event")).startswith("circuit ")]
    return [(line["event"], line["reason"], str(line["detail"])[:8]) for line in lines]


class TestTheApi:
    def test_readyz_has_start_reason_and_next_probe(self, stage: WorkerHarness) -> None:
        """First 503, then 500, then recovery: three lines for any number of probes."""
        stage.simulator.add_fault(status=503, times=16, min_contacts=1)
        stage.simulator.add_fault(status=500, times=None, min_contacts=1)
        stage.produce(contacts(100, stage.partitions))
        began = datetime.now(UTC).replace(microsecond=0)
        worker = stage.start_ready(genesys__max_retries="1")
        first = stage.wait(lambda: readyz(worker), "a hold", needs=worker)
        assert first["reason"].startswith("HTTP 503")
        assert first["what"] == "probe"
        assert began <= datetime.fromisoformat(first["since"]) <= datetime.now(UTC)

        def failed() -> float:
            return sample(worker, "stream_scorer_circuit_breaker_probes_total", 'outcome="failed"') or 0

        stage.wait(lambda: failed() >= 3, "three probes", needs=worker)
        assert sample(worker, "stream_scorer_circuit_breaker_open", 'reason="api"') == 1
        assert (sample(worker, "stream_scorer_circuit_breaker_open_time_seconds", 'reason="api"') or 0) >= 1.0
        assert (sample(worker, "stream_scorer_circuit_breaker_next_probe_seconds", 'reason="api"') or 0) <= 0.5
        unanswered = len(worker.said("scoring request failed"))
        stage.wait(lambda: failed() >= 6, "three more", needs=worker)
        assert len(worker.said("scoring request failed")) == unanswered, "a line for every probe"
        later = stage.wait(
            lambda: (line := readyz(worker)) and line["reason"].startswith("HTTP 500") and line, "another reason"
        )
        assert later["since"] == first["since"]
        stage.simulator.clear_faults()
        stage.wait_done(needs=worker)
        stage.wait(worker.ready, "the worker to be ready again", needs=worker)
        assert sample(worker, "stream_scorer_circuit_breaker_open", 'reason="api"') == 0
        assert sample(worker, "stream_scorer_circuit_breaker_open_time_seconds", 'reason="api"') == 0
        assert sample(worker, "stream_scorer_circuit_breaker_probes_total", 'outcome="recovered"') == 1
        assert worker.stop() == 0
        assert breaker_events(worker) == [
            ("circuit opened", "api", "HTTP 503"),
            ("circuit reason changed", "api", "HTTP 500"),
            ("circuit closed", "api", "HTTP 500"),
        ]
        [ended] = worker.said("circuit closed")
        assert ended["since"] == first["since"]
        assert ended["probes"] >= 6
        assert verify_outputs(stage).count("rejected") == 0

    def test_an_api_that_refuses_every_contact_opens_the_circuit_breaker(self, stage: WorkerHarness) -> None:
        stage.simulator.configure(refuse_prefix="C-")
        stage.produce(contacts(40, stage.partitions))
        worker = stage.start_ready(scoring__max_contacts="1")
        line = stage.wait(lambda: readyz(worker), "a hold", needs=worker)
        assert line["reason"].startswith("HTTP 400")
        assert sample(worker, "stream_scorer_circuit_breaker_open", 'reason="api"') == 1
        stage.simulator.configure(refuse_prefix="")
        stage.wait_done(needs=worker)
        assert worker.stop() == 0
        events = [(event, cause) for event, cause, _ in breaker_events(worker)]
        assert events == [("circuit opened", "api"), ("circuit closed", "api")]
        assert verify_outputs(stage).count("rejected") == 0


class TestLag:
    def test_the_lag_grows_while_reading_is_paused(self, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        """In fast motion, so that the brokers are asked every 1.5 s."""
        run_clocks_fast(monkeypatch)
        sources: list[GroupConsumer] = []

        def make_source(*arguments: Any, **more: Any) -> GroupConsumer:
            sources.append(GroupConsumer(*arguments, **more))
            return sources[-1]

        monkeypatch.setattr(wiring, "GroupConsumer", make_source)
        with FastHarness(broker.bootstrap_servers, quota=1_000_000) as harness:
            harness.simulator.add_fault(status=503, times=None, min_contacts=1)
            harness.produce(contacts(20, harness.partitions))
            # The first probe is due after the test: when all contacts have failed as probes, more are read.
            worker = harness.start(genesys__probe_interval_s="3600")

            def lag() -> float:
                metrics = worker.metrics().items()
                return sum(value for name, value in metrics if name.startswith("stream_scorer_consumer_lag{"))

            wait_until(lambda: worker.why_not_ready().startswith("circuit open"), "the circuit to open")
            wait_until(lambda: sources[0]._paused, "reading to be paused")
            harness.produce(contacts(80, harness.partitions, "later"))
            wait_until(lambda: lag() == 100, "the lag of all contacts")
            assert sources[0]._paused


class TestQuotaAndBudget:
    def test_readyz_has_the_time_of_the_next_request(self, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        """In fast motion: 10 requests (and the check of the model) or 50 contacts a minute, and nearly twice as much.

        The linger time is a few real milliseconds here, so two requests at the start may not be full.
        """
        run_clocks_fast(monkeypatch)
        with (
            FastHarness(broker.bootstrap_servers, quota=1_000) as quota,
            FastHarness(broker.bootstrap_servers, quota=1_000) as budget,
        ):
            for harness in (quota, budget):
                harness.produce(contacts(90, harness.partitions))
            workers = {
                "quota": quota.start(genesys__requests_per_minute="11", scoring__max_contacts="5"),
                "spend_limit": budget.start(scoring__max_contacts_per_minute="50", scoring__max_contacts="5"),
            }
            waited = {"quota": "own_quota", "spend_limit": "spend_limit"}
            for cause, worker in workers.items():
                line = wait_until(lambda worker=worker: LINE.fullmatch(worker.why_not_ready()), cause)  # type: ignore[misc]
                assert line["reason"].startswith(cause)
                assert (line["what"], 0 < int(line["next_s"]) <= 60) == ("request", True)
                metrics = worker.metrics()
                assert metrics[f'stream_scorer_circuit_breaker_open{{reason="{cause}"}}'] == 1
                assert metrics[f'stream_scorer_circuit_breaker_next_probe_seconds{{reason="{cause}"}}'] <= 60
            assert workers["quota"].metrics()["stream_scorer_quota_time_to_exhaustion_seconds"] == 0
            assert 0 < workers["quota"].metrics()["stream_scorer_quota_wait_seconds"] <= 60.5
            wait_until(lambda: quota.is_done() and budget.is_done(), "both to be done")
            for cause, worker in workers.items():
                wait_until(lambda worker=worker: not worker.why_not_ready(), f"the end of {cause}")  # type: ignore[misc]
                metrics = worker.metrics()
                assert metrics[f'stream_scorer_circuit_breaker_open{{reason="{cause}"}}'] == 0
                seconds = metrics[f'stream_scorer_requests_wait_time_seconds_total{{reason="{waited[cause]}"}}']
                assert 40 <= seconds <= 61.5
            asked = [arrival.at for arrival in budget.arrivals]
            # A minute takes seconds here, so a delayed request is late by several simulated seconds.
            assert all(sum(5 for at in asked if start <= at < start + 50.0) <= 50 for start in asked)
            quota.stop_workers()
            budget.stop_workers()
            assert (len(verify_outputs(quota).outputs), len(verify_outputs(budget).outputs)) == (90, 90)


class TestExpired:
    def test_the_age_is_checked_when_a_record_is_read(self, stage: WorkerHarness) -> None:
        """A contact that expires while the circuit breaker is open is still sent: an outage never rejects a contact."""
        stage.simulator.add_fault(status=503, times=None, min_contacts=1)
        worker = stage.start_ready(scoring__max_event_age_s="5")
        now_ms = time.time_ns() // 1_000_000
        young = [contact(f"young-{number}", 0, occurred_at=now_ms) for number in range(3)]
        stage.produce([*young, contact("old", 1, occurred_at=now_ms - 60_000)])
        stage.wait(lambda: readyz(worker), "a hold", needs=worker)
        stage.wait(lambda: time.time_ns() // 1_000_000 > now_ms + 6_000, "the young one to get old", needs=worker)
        assert readyz(worker)
        stage.simulator.clear_faults()
        stage.wait_done(needs=worker)
        assert worker.stop() == 0
        verdict = verify_outputs(stage)
        assert verdict.reasons() == {"expired": 1}
        assert verdict.by_contact("old")[0].header("error-reason") == "expired"
