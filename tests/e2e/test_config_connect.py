"""``config check --connect`` step by step: each failure with its remedy, and all steps that do not depend on it."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from worker_harness import ROOT

from stream_scorer.cli import main
from stream_scorer.cli.config import check
from stream_scorer.cli.examples import examples_of
from stream_scorer.kafka.admin.topics import create_topics
from stream_scorer.local.kafka.process import free_port
from stream_scorer.settings import TopicsSettings, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kafka_fixture import Broker

    from stream_scorer.local.receiver import Receiver
    from stream_scorer.local.simulator import Simulator

pytestmark = pytest.mark.kafka

CAMPAIGN = ("campaign topics", "campaign rights", "campaign retention")
STEPS = ("settings", "Kafka", "topics", "rights", "retention", *CAMPAIGN, "login", "model", "endpoint")


@pytest.fixture
def environment(broker: Broker, simulator: Simulator, receiver: Receiver) -> dict[str, str]:
    """Of a worker for which everything is there, except the topics."""
    prefix = f"connect-{uuid.uuid4().hex[:8]}"
    return {
        "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        **{f"STREAM_SCORER_TOPICS__{key.upper()}": f"{prefix}-{key}" for key in TopicsSettings.model_fields},
        **simulator.environment(),
        **receiver.environment(),
    }


def checked(environment: Mapping[str, str], code: int, *, encoding: str = "utf-8") -> tuple[dict[str, str], Any]:
    """The mark of each step, and the ended process."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("STREAM_SCORER_", "GENESYS_", "OTEL_"))}
    done = subprocess.run(
        [sys.executable, "-m", "stream_scorer", "config", "check", "--connect"],
        env={**kept, **environment, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
        encoding=encoding,
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    tomllib.loads(done.stdout)
    marks = {name: mark for mark, name in re.findall(rf"(?m)^# (\S+) ({'|'.join(STEPS)}): ", done.stdout)}
    return marks, done


def test_everything_is_there(environment: dict[str, str]) -> None:
    create_topics(load_settings(environ=environment))
    marks, done = checked(environment, 0)
    assert marks == dict.fromkeys(STEPS, "✓")
    assert list(marks) == list(STEPS)
    assert "HTTP 404 to HEAD /; nothing was delivered" in done.stdout
    assert "stream-scorer:" not in done.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_marks_are_words_where_the_stream_has_no_symbols(environment: dict[str, str], encoding: str) -> None:
    marks, _ = checked({**environment, "STREAM_SCORER_CALLBACKS__TARGET": "log"}, 1, encoding=encoding)
    assert marks == {
        **dict.fromkeys(("settings", "Kafka", "rights", "campaign rights", "login", "model"), "ok"),
        **dict.fromkeys(("topics", "campaign topics"), "FAILED"),
        **dict.fromkeys(("retention", "campaign retention", "endpoint"), "-"),
    }


@pytest.mark.parametrize(
    ("change", "marks", "parts"),
    [
        (
            {"GENESYS_CLIENT_ID": "", "STREAM_SCORER_GENESYS__CLIENT_ID": None},
            {"settings": "✗", "login": "-", "model": "-"},
            ["genesys.client_id is missing"],
        ),
        (
            {"STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:{port}"},
            {"Kafka": "✗", "topics": "-", "rights": "-", "retention": "-", **dict.fromkeys(CAMPAIGN, "-")},
            ["no answer from Kafka at 127.0.0.1:{port}"],
        ),
        (
            {"STREAM_SCORER_TOPICS__SCORES": "no-such-topic"},
            {"topics": "✗", "retention": "-", "campaign topics": "✗", "campaign retention": "-"},
            ["topic no-such-topic is missing"],
        ),
        *(
            (
                {f"STREAM_SCORER_TOPICS__{key}": "no-such-topic"},
                {"campaign topics": "✗", "campaign retention": "-"},
                ["topic no-such-topic is missing"],
            )
            for key in ("CALLBACKS", "CALLBACKS_REJECTED", "RECEIPTS")
        ),
        (
            {"STREAM_SCORER_AUDIT__RETENTION_DAYS": "900"},
            {"retention": "✗"},
            [
                "keeps audit events for 400 days, and audit.retention_days is 900",
                "keeps decisions for 400 days, and audit.retention_days is 900",
            ],
        ),
        (
            {"STREAM_SCORER_GENESYS__CLIENT_SECRET": "wrong"},
            {"login": "✗", "model": "-"},
            ["the login service refuses OAuth client"],
        ),
        (
            {"STREAM_SCORER_GENESYS__LOGIN_URL": "http://127.0.0.1:{port}"},
            {"login": "✗", "model": "-"},
            ["no token: "],
        ),
        ({"STREAM_SCORER_GENESYS__MODEL_ID": "other"}, {"model": "✗"}, ["this API has no model 'other'"]),
        (
            {"STREAM_SCORER_CALLBACKS__URL": "http://127.0.0.1:{port}/hook"},
            {"endpoint": "✗"},
            ["webhook http://127.0.0.1:{port}: "],
        ),
        (
            {"STREAM_SCORER_CALLBACKS__SECRET": None, "STREAM_SCORER_GENESYS__MODEL_ID": "other"},
            {"endpoint": "✗", "model": "✗"},
            ["this API has no model 'other'", "callbacks.secret is missing"],
        ),
    ],
)
def test_a_failed_step_has_its_remedy_and_stops_only_what_needs_it(
    environment: dict[str, str], change: dict[str, str | None], marks: dict[str, str], parts: list[str]
) -> None:
    create_topics(load_settings(environ=environment))
    port = str(free_port())
    given = {name: None if text is None else text.replace("{port}", port) for name, text in change.items()}
    changed = {name: text for name, text in {**environment, **given}.items() if text is not None}
    found, done = checked(changed, 1)
    assert found == {**dict.fromkeys(STEPS, "✓"), **marks}
    errors = [line for line in done.stderr.splitlines() if line.startswith("stream-scorer: ")]
    assert len(errors) == len(parts)
    for error, part in zip(errors, parts, strict=True):
        assert part.replace("{port}", port) in error
    lines = done.stdout.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("# ✗"):
            assert lines[number + 1].startswith(("#   ", line.partition(": ")[0])), "the remedy, or one more problem"


def test_the_topic_of_decisions_is_not_needed_and_its_retention_is_checked(
    environment: dict[str, str], broker: Broker
) -> None:
    create_topics(load_settings(environ=environment))
    missing = {**environment, "STREAM_SCORER_TOPICS__DECISIONS": "no-such-topic"}
    marks, done = checked(missing, 0)
    assert marks == dict.fromkeys(STEPS, "✓")
    assert "# topic no-such-topic: missing; no worker needs it" in done.stdout
    short = f"short-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic(short, 1, 1, config={"retention.ms": "86400000"})])[short].result(30)
    marks, done = checked({**environment, "STREAM_SCORER_TOPICS__DECISIONS": short}, 1)
    assert marks["retention"] == "✗"
    assert f"topic {short} keeps decisions for 1 days, and audit.retention_days is 400" in done.stderr


def test_the_campaign_worker_is_checked_where_callbacks_have_a_target(
    environment: dict[str, str], broker: Broker
) -> None:
    settings = load_settings(environ=environment)
    create_topics(settings)
    _, done = checked(environment, 0)
    assert "# ✓ campaign topics: all 8 of the campaign worker exist" in done.stdout
    assert f"# topic {settings.topics.receipts}: 4 partitions" in done.stdout
    assert f"# topic {settings.topics.retries(4)[3]}: 4 partitions" in done.stdout
    groups = f"{settings.callbacks_group_id}, {settings.delivery_group_id}"
    assert re.search(rf"# ✓ campaign rights: .*on the group {groups} show when a worker starts", done.stdout)

    compacted = f"compacted-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic(compacted, 1, 1, config={"cleanup.policy": "compact"})])[compacted].result(30)
    marks, done = checked({**environment, "STREAM_SCORER_TOPICS__RECEIPTS": compacted}, 1)
    assert marks == {**dict.fromkeys(STEPS, "✓"), "campaign retention": "✗"}
    assert f"topic {compacted} has cleanup.policy=compact" in done.stderr

    # Without a target there is no campaign worker.
    none = {name: text for name, text in environment.items() if name != "STREAM_SCORER_CALLBACKS__URL"}
    marks, _ = checked({**none, "STREAM_SCORER_TOPICS__RECEIPTS": "no-such-topic"}, 0)
    assert not set(CAMPAIGN) & set(marks)


def test_no_secret_is_printed(environment: dict[str, str]) -> None:
    _, done = checked({**environment, "STREAM_SCORER_GENESYS__CLIENT_SECRET": "hunter2hunter2"}, 1)
    assert "hunter2" not in done.stdout + done.stderr


def test_the_examples_of_the_help(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create_topics(load_settings(environ=environment))
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scorer.toml").write_text("")
    (tmp_path / "contacts.csv").write_text(
        "contact_id,previous_calls,avg_handle_time,last_contact_days,segment_id\na,1,180.5,30,basic\n"
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    examples = examples_of(check)
    assert len(examples) == 3
    for example in examples:
        assert main(shlex.split(example)) == 0, capsys.readouterr()
