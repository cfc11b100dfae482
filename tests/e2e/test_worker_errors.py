"""Fatal errors of ``stream-scorer run``: one clear line, the exit code, and no loss."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer
from output_verifier import verify_outputs
from scoring_harness import contacts
from worker_harness import QUICK_PROPERTIES

from stream_scorer.core.exactly_once.commit_metadata import parse_metadata
from stream_scorer.local.simulator import SimulatorConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_harness import WorkerHarness, WorkerProcess

pytestmark = pytest.mark.kafka


def the_line(worker: WorkerProcess, code: int) -> str:
    """Return its only output line after the exit with ``code``."""
    assert worker.exit_code() == code, worker.log()
    [line] = worker.errors()
    assert line.startswith("stream-scorer: ")
    assert "Traceback" not in worker.log()
    assert "simulator-secret" not in worker.log()
    return line


class TestApiRejectsClient:
    def test_a_wrong_secret(self, stage: WorkerHarness) -> None:
        stage.produce(contacts(10, stage.partitions))
        worker = stage.start(genesys__client_secret="not-the-secret")
        line = the_line(worker, 1)
        assert "client_secret" in line
        assert "not-the-secret" not in line
        assert not worker.said("partition assigned")
        assert verify_outputs(stage, everything=False).outputs == {}

    def test_a_missing_scope(self, stage: WorkerHarness) -> None:
        stage.simulator.configure(scopes=[])
        stage.produce(contacts(10, stage.partitions))
        worker = stage.start()
        assert "predictiveengagement:score" in the_line(worker, 1)
        assert not worker.said("partition assigned")

    def test_an_unknown_model(self, stage: WorkerHarness) -> None:
        stage.produce(contacts(10, stage.partitions))
        line = the_line(stage.start(genesys__model_id="no-such-model"), 1)
        assert "no-such-model" in line
        assert "model_id" in line

    def test_a_scope_removed_at_run_time_ends_no_worker(self, stage: WorkerHarness) -> None:
        """The worker stays in its group; a stop meanwhile commits the finished contacts."""
        stage.simulator.configure(latency_ms=100)
        worker = stage.start_ready(scoring__max_contacts="50", scoring__max_uncommitted="800")
        stage.produce(contacts(3000, stage.partitions))
        progress = stage.watch()
        stage.wait(lambda: progress.done() >= 200, "the first contacts to be committed", needs=worker)
        progress.close()
        stage.simulator.configure(scopes=[])
        why = "predictiveengagement:score"
        stage.wait(lambda: why in worker.why_not_ready(), "the circuit breaker to open", needs=worker)
        assert worker.stop() == 0
        [drained] = worker.said("drained")
        before = verify_outputs(stage, everything=False)
        assert 200 <= len(before.outputs) < 3000
        # Contacts finished after one without a response cannot be committed: outputs are in input order.
        assert before.paid_twice(stage.simulator.scored()) <= drained["contacts_sent_again"] <= 800
        successor = stage.start()
        assert why in the_line(successor, 1)
        stage.simulator.configure(scopes=SimulatorConfig().scopes, latency_ms=0)
        successor = stage.start_ready()
        stage.wait_done(needs=successor)
        assert successor.stop() == 0
        verdict = verify_outputs(stage)
        assert verdict.count("rejected") == 0
        assert verdict.paid_twice(stage.simulator.scored()) <= 800


class TestTheApiIsDownAtStart:
    def test_it_waits_outside_the_group_until_the_api_is_up(self, stage: WorkerHarness) -> None:
        stage.produce(contacts(10, stage.partitions))
        stage.simulator.stop()
        worker = stage.start()
        why = stage.wait(
            lambda: re.search("refused.* next attempt in", line := worker.why_not_ready()) and line,
            "the start to be delayed",
            needs=worker,
        )
        assert why.startswith("starting: no token: ")
        live = worker.admin("/livez")
        assert live is not None
        assert live.status == 200
        assert not worker.said("partition assigned")
        stage.simulator.start()
        stage.simulator.configure(quota=1_000_000)
        stage.wait_done(needs=worker)
        assert worker.stop() == 0
        assert len(verify_outputs(stage).outputs) == 10
        assert len(worker.said("start delayed")) == 1

    def test_sigterm_ends_the_wait_at_once(self, stage: WorkerHarness) -> None:
        stage.simulator.add_fault(status=503, retry_after=600, times=None)
        worker = stage.start()
        stage.wait(lambda: "next attempt in" in worker.why_not_ready(), "the start to be delayed", needs=worker)
        began = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - began < 5


class TestTheSecretIsReadAgain:
    def test_a_secret_that_was_replaced_is_used_for_the_next_token(self, stage: WorkerHarness) -> None:
        """The login service is down at startup; the wrong secret is replaced before it is up again."""
        secret = stage.folder / "secret"
        secret.write_text("the-old-one\n")
        stage.simulator.add_fault(path="token", status=503, times=None)
        worker = stage.start(genesys__client_secret=None, genesys__client_secret_file=str(secret))
        stage.wait(lambda: worker.said("start delayed"), "the start to be delayed", needs=worker)
        secret.write_text(stage.simulator.environment()["STREAM_SCORER_GENESYS__CLIENT_SECRET"] + "\n")
        stage.simulator.clear_faults()
        stage.wait(lambda: worker.said("partition assigned"), "the worker to have partitions", needs=worker)
        assert worker.stop() == 0


class TestBrokerErrors:
    @pytest.mark.slow  # a limit of half a minute
    def test_connection_refused(self, stage: WorkerHarness) -> None:
        line = the_line(stage.start(kafka__bootstrap_servers="127.0.0.1:1"), 1)
        assert "127.0.0.1:1" in line

    @pytest.mark.parametrize("kind", ["features", "scores", "audit"])
    def test_a_missing_topic(self, stage: WorkerHarness, kind: str) -> None:
        line = the_line(stage.start(**{f"topics__{kind}": "no-such-topic"}), 1)
        assert "no-such-topic" in line
        assert "topics create" in line

    def test_committed_offsets_out_of_range(self, stage: WorkerHarness) -> None:
        stage.produce(contacts(100, stage.partitions))
        stage.commit_by_hand(dict.fromkeys(range(stage.partitions), 5000))
        line = the_line(stage.start(), 1)
        assert "5000" in line
        assert stage.topics["features"] in line

    def test_a_session_timeout_rejected_by_the_broker(self, stage: WorkerHarness) -> None:
        quick = {**QUICK_PROPERTIES, "session.timeout.ms": 900, "heartbeat.interval.ms": 300}
        line = the_line(stage.start(kafka__properties=json.dumps(quick)), 1)
        assert "session.timeout.ms must be between" in line
        assert stage.group_id in line

    def test_a_group_of_another_program(self, stage: WorkerHarness) -> None:
        """It has another assignment strategy, which the group rejects."""
        other = Consumer(
            {
                "bootstrap.servers": stage.bootstrap_servers,
                "group.id": stage.group_id,
                "partition.assignment.strategy": "range",
            }
        )
        other.subscribe([stage.topics["features"]])
        stage.wait(lambda: [other.poll(0.1), other.assignment()][1], "the other to have partitions")
        worker = stage.start("--from", "earliest")
        stage.wait(lambda: [other.poll(0.1), not worker.running][1], "the worker to end")
        assert "check kafka.group_id" in the_line(worker, 1)
        other.close()

    def test_two_workers_with_one_instance_id(self, stage: WorkerHarness) -> None:
        """They fence each other until one of them exits with the name of the key."""
        stage.simulator.configure(latency_ms=300)  # slow, so that they fence each other for long enough
        workers = [stage.start("--from", "earliest", name="twin", scoring__max_contacts="10") for _ in range(2)]
        stage.wait(lambda: all(w.said("partition assigned") for w in workers), "both to have partitions")
        stage.produce(contacts(8000, stage.partitions))
        ended = stage.wait(lambda: [w for w in workers if not w.running], "one of them to end")
        assert "kafka.instance_id" in the_line(ended[0], 1)
        stage.simulator.configure(latency_ms=0)
        [other] = [w for w in workers if w is not ended[0]]
        # The last commit of the first one has fenced the other once more, possibly for the third time.
        if other.running and other.stop() != 0:
            assert "kafka.instance_id" in the_line(other, 1)
        single = stage.start_ready(name="single")
        stage.wait_done(needs=single)
        assert single.stop() == 0
        assert len(verify_outputs(stage).outputs) == 8000


class TestSettings:
    def test_an_unknown_key(self, stage: WorkerHarness) -> None:
        assert "STREAM_SCORER_SCORING__LINGER" in the_line(stage.start(scoring__linger="5"), 2)

    def test_an_unknown_section(self, stage: WorkerHarness) -> None:
        assert "STREAM_SCORER_SCORER__LINGER_MS" in the_line(stage.start(scorer__linger_ms="5"), 2)

    def test_a_wrong_value(self, stage: WorkerHarness) -> None:
        assert "scoring.max_in_flight" in the_line(stage.start(scoring__max_in_flight="many"), 2)

    def test_a_missing_secret(self, stage: WorkerHarness) -> None:
        assert "genesys.client_secret" in the_line(stage.start(genesys__client_secret=None), 2)

    def test_an_unknown_property(self, stage: WorkerHarness) -> None:
        assert "no.such.property" in the_line(stage.start(kafka__properties='{"no.such.property": 1}'), 2)

    def test_an_admin_port_that_is_taken(self, stage: WorkerHarness) -> None:
        first = stage.start_ready()
        assert "admin.port" in the_line(stage.start(admin__port=str(first.admin_port)), 1)
        assert first.stop() == 0


def test_a_compacted_output_topic_ends_the_start(make_stage: Callable[..., WorkerHarness]) -> None:
    """One undecodable record without a key would block its partition and the transactions of all."""
    stage = make_stage(partitions=1, configs={"rejected": {"cleanup.policy": "compact"}})
    line = the_line(stage.start(), 1)
    assert f"topic {stage.topics['rejected']} has cleanup.policy=compact" in line
    assert "cleanup.policy=delete" in line


def test_a_short_retention_of_the_audit_is_logged_at_the_start(make_stage: Callable[..., WorkerHarness]) -> None:
    stage = make_stage(partitions=1, configs={"audit": {"retention.ms": "604800000"}})
    worker = stage.start_ready()
    [line] = worker.said("audit retention short")
    assert (line["level"], "--update-retention" in line["detail"]) == ("warning", True)


class TestGroupStart:
    def test_a_new_group_beside_old_outputs_is_rejected_without_start_from(self, stage: WorkerHarness) -> None:
        stage.produce(contacts(40, stage.partitions))
        worker = stage.start_ready()
        stage.wait_done(needs=worker)
        assert worker.stop() == 0
        stage.group_id += "-mistyped"
        line = the_line(stage.start(), 1)
        assert "--from" in line
        assert stage.group_id in line
        assert stage.simulator.stats().contacts_scored == 40
        worker = stage.start_ready("--from", "latest")
        stage.produce(contacts(20, stage.partitions, prefix="new"))
        stage.wait_done(needs=worker)
        assert worker.stop() == 0
        assert {parse_metadata(commit.metadata).start for commit in stage.commits().values()} == {10}
        account = stage.simulator.scored()
        assert len(account) == 60
        assert set(account.values()) == {1}

    def test_from_a_time(self, stage: WorkerHarness) -> None:
        stage.produce(contacts(40, stage.partitions, prefix="early"))
        moment = time.time_ns() // 1_000_000 + 1
        stage.wait(lambda: time.time_ns() // 1_000_000 > moment, "the clock to go on")
        stage.produce(contacts(20, stage.partitions, prefix="late"))
        worker = stage.start_ready("--from", datetime.fromtimestamp(moment / 1000, UTC).isoformat())
        stage.wait_done(needs=worker)
        assert worker.stop() == 0
        verdict = verify_outputs(stage)
        assert {parse_metadata(commit.metadata).start for commit in stage.commits().values()} == {10}
        assert {(o.key or b"")[:4] for o in verdict.outputs.values()} == {b"late"}
        assert len(verdict.outputs) == 20

    def test_an_invalid_start(self, stage: WorkerHarness) -> None:
        assert "yesterday" in the_line(stage.start("--from", "yesterday"), 2)
