"""Creation and checks of topics on a real Kafka."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic
from scoring_harness import wait_until

from stream_scorer.cli import main
from stream_scorer.cli.examples import examples_of
from stream_scorer.cli.topics import create
from stream_scorer.errors import BrokerRefused, BrokerUnavailable
from stream_scorer.kafka.admin.output_topics import OutputsReport, check_outputs
from stream_scorer.kafka.admin.retry_retention import check_retry_retention
from stream_scorer.kafka.admin.topics import NewTopics, check_topics, create_topics, existing_topics
from stream_scorer.settings import Settings, TopicsSettings, load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from kafka_fixture import Broker

    from stream_scorer.local.simulator import Simulator

pytestmark = pytest.mark.kafka

DAY_MS = 86_400_000


def test_partitions_retention_and_service_are_chosen(
    broker: Broker, settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = settings.topics
    for key in TopicsSettings.model_fields:
        monkeypatch.setenv(f"STREAM_SCORER_TOPICS__{key.upper()}", getattr(topics, key))
    monkeypatch.setenv("STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    create = ("topics", "create", "--only", "scoring", "--partitions", "3", "--replication-factor", "1")
    assert main([*create, "--retention", "40d", "--dry-run"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert f"missing   {topics.scores} (3 partitions, cleanup.policy=delete, retention.ms={40 * DAY_MS})" in shown
    assert not any(topics.callbacks in line for line in shown)
    assert existing_topics(settings, settings.all_topics) == ()

    assert main([*create, "--retention", "40d"]) == 0
    assert check_topics(settings, settings.scoring_topics) == dict.fromkeys(settings.scoring_topics, 3)
    assert existing_topics(settings, [topics.callbacks, topics.decisions]) == (topics.decisions,)
    days = {
        name: int(topic_config(broker, name)["retention.ms"]) // DAY_MS
        for name in (topics.features, topics.scores, topics.audit, topics.decisions, settings.contact_retry_topics[0])
    }
    assert list(days.values()) == [40, 40, 400, 400, 40]
    capsys.readouterr()
    assert main(["topics", "create", "--retention", "40"]) == 2
    assert "--retention '40': write hours or days" in capsys.readouterr().err


def test_the_examples_of_the_help(
    broker: Broker, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in TopicsSettings.model_fields:
        monkeypatch.setenv(f"STREAM_SCORER_TOPICS__{key.upper()}", getattr(settings.topics, key))
    monkeypatch.setenv("STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    examples = examples_of(create)
    assert len(examples) == 3
    for example in examples:
        assert main(example.split()) == 0, capsys.readouterr().err
    assert set(check_topics(settings, settings.all_topics).values()) == {12}


def test_a_short_retention_leaves_contacts_that_wait(broker: Broker, settings: Settings) -> None:
    create_topics(settings, NewTopics(retention_ms=DAY_MS))
    retry, scores = settings.contact_retry_topics[0], settings.topics.scores
    kept = [int(topic_config(broker, name)["retention.ms"]) // DAY_MS for name in (retry, scores)]
    assert kept == [30, 1]
    assert check_retry_retention(settings, settings.contact_retry_topics) is None


@pytest.fixture
def names() -> dict[str, str]:
    """Topics of this test only."""
    prefix = f"topics-{uuid.uuid4().hex[:8]}"
    return {key: f"{prefix}-{key}" for key in TopicsSettings.model_fields}


@pytest.fixture
def settings(broker: Broker, names: dict[str, str]) -> Settings:
    flags = {f"topics.{key}": name for key, name in names.items()}
    return load_settings(flags={"kafka.bootstrap_servers": broker.bootstrap_servers, **flags}, environ={})


def unreachable(servers: str) -> Settings:
    return load_settings(flags={"kafka.bootstrap_servers": servers}, environ={})


def topic_config(broker: Broker, topic: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})  # must outlive the future
    (future,) = admin.describe_configs([resource]).values()
    return {name: entry.value for name, entry in future.result(timeout=10).items()}


def test_all_are_made_and_can_be_used_at_once(settings: Settings, broker: Broker) -> None:
    report = create_topics(settings)
    assert report.created == settings.all_topics
    assert report.existing == ()
    assert len(report.created) == 16
    assert check_topics(settings, settings.all_topics) == dict.fromkeys(settings.all_topics, 4)
    assert topic_config(broker, settings.topics.rejected)["max.message.bytes"] == "2097152"
    assert topic_config(broker, settings.topics.scores)["max.message.bytes"] != "2097152"


def test_retry_topics_keep_their_records_as_long_as_the_features_topic(settings: Settings, broker: Broker) -> None:
    year_ms = 365 * DAY_MS
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    features = NewTopic(settings.topics.features, 1, 1, config={"retention.ms": str(year_ms)})
    admin.create_topics([features])[settings.topics.features].result(30)
    create_topics(settings)
    for topic in settings.contact_retry_topics:
        config = topic_config(broker, topic)
        assert (config["retention.ms"], config["cleanup.policy"]) == (str(year_ms), "delete")
        assert config["max.message.bytes"] == "2097152"
    assert check_retry_retention(settings, settings.contact_retry_topics) is None


@pytest.mark.parametrize(
    ("features", "retry", "part"),
    [
        (
            {},
            {"retention.ms": str(29 * DAY_MS)},
            f"keeps records for 29 days, .*: set its retention.ms to {30 * DAY_MS}",
        ),
        ({"retention.ms": "-1"}, {"retention.ms": str(99 * DAY_MS)}, ".*: set its retention.ms to -1"),
        ({}, {"cleanup.policy": "compact,delete", "retention.ms": "-1"}, "has cleanup.policy=.*: set it to delete"),
    ],
)
def test_a_retry_topic_that_would_lose_contacts_is_refused_with_the_remedy(
    settings: Settings, broker: Broker, features: dict[str, str], retry: dict[str, str], part: str
) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    name = settings.contact_retry_topics[0]
    names = [settings.topics.features, name]
    wanted = [NewTopic(topic, 1, 1, config=given) for topic, given in zip(names, (features, retry), strict=True)]
    for made in admin.create_topics(wanted).values():
        made.result(30)
    wait_until(lambda: len(existing_topics(settings, names)) == len(names), "the topics to be known")
    with pytest.raises(BrokerRefused, match=f"topic {name} {part}"):
        check_retry_retention(settings, [name])


def test_audit_events_are_kept_for_400_days_and_no_output_is_compacted(settings: Settings, broker: Broker) -> None:
    create_topics(settings)
    assert topic_config(broker, settings.topics.audit)["retention.ms"] == str(400 * DAY_MS)
    assert check_outputs(settings, settings.topics.scoring[1:]) == OutputsReport(None, None)


def test_the_retention_of_an_audit_topic_that_exists_is_reported_and_updated(
    settings: Settings, broker: Broker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = settings.topics
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic(topics.audit, 1, 1, config={"retention.ms": str(7 * DAY_MS)})])[topics.audit].result(
        30
    )
    for name, value in {
        "kafka.bootstrap_servers": broker.bootstrap_servers,
        **{f"topics.{key}": getattr(topics, key) for key in TopicsSettings.model_fields},
    }.items():
        monkeypatch.setenv(f"STREAM_SCORER_{name.upper().replace('.', '__')}", str(value))
    assert main(["topics", "create"]) == 0
    assert topic_config(broker, topics.audit)["retention.ms"] == str(7 * DAY_MS)
    short = check_outputs(settings, [topics.audit]).audit_retention
    assert short == (
        f"topic {topics.audit} keeps audit events for 7 days, and audit.retention_days is 400:"
        " run `stream-scorer topics create --update-retention`, or lower the setting"
    )
    for name in ("CLIENT_ID", "CLIENT_SECRET", "MODEL_ID"):
        monkeypatch.setenv(f"GENESYS_{name}", "x")
    capsys.readouterr()
    assert main(["config", "check", "--connect"]) == 1
    assert short in capsys.readouterr().err
    assert main(["topics", "create", "--update-retention"]) == 0
    assert f"retention {topics.audit} (400 days)" in capsys.readouterr().out
    wait_until(lambda: topic_config(broker, topics.audit)["retention.ms"] == str(400 * DAY_MS), "the new retention")
    assert main(["topics", "create", "--update-retention"]) == 0
    assert "retention" not in capsys.readouterr().out


@pytest.mark.parametrize("key", ["scores", "review", "rejected", "audit"])
@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_a_compacted_output_is_refused_with_the_remedy(
    settings: Settings, broker: Broker, key: str, policy: str
) -> None:
    topic = getattr(settings.topics, key)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic(topic, 1, 1, config={"cleanup.policy": policy})])[topic].result(30)
    wait_until(lambda: existing_topics(settings, [topic]), "the topic to be known")
    with pytest.raises(BrokerRefused, match=f"topic {topic} has cleanup.policy=.*: .* Set cleanup.policy to delete"):
        check_outputs(settings, settings.topics.scoring[1:])


def test_existing_topics_are_not_changed(settings: Settings) -> None:
    create_topics(settings)
    report = create_topics(settings)
    assert (report.created, report.existing) == ((), settings.all_topics)


def test_several_settings_may_name_one_topic(settings: Settings, names: dict[str, str]) -> None:
    shared = settings.model_copy(update={"topics": TopicsSettings(**{**names, "review": names["scores"]})})
    report = create_topics(shared)
    assert len(report.created) == len(set(report.created)) == 15
    assert names["review"] not in report.created


def test_two_simultaneous_starts_do_not_conflict(settings: Settings) -> None:
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(create_topics, [settings, settings]))
    created = [name for report in reports for name in report.created]
    assert sorted(created) == sorted(settings.all_topics)


def test_a_missing_topic_is_named_with_the_remedy(settings: Settings) -> None:
    with pytest.raises(BrokerRefused) as caught:
        check_topics(settings, [settings.topics.scores])
    assert f"topic {settings.topics.scores} is missing" in str(caught.value)
    assert "stream-scorer topics create" in str(caught.value)


def test_a_topic_lookup_does_not_create_the_topic(settings: Settings) -> None:
    for _ in range(2):
        with pytest.raises(BrokerRefused):
            check_topics(settings, settings.topics.scoring)


@pytest.mark.parametrize(
    ("servers", "reason"),
    [("127.0.0.1:1", "Connection refused"), ("no-such-host.invalid:9092", "Failed to resolve")],
)
def test_an_unreachable_broker_is_named_within_the_limit(servers: str, reason: str) -> None:
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable) as caught:
        check_topics(unreachable(servers), ["any"], timeout_s=1.0)
    assert time.monotonic() - started < 5
    assert servers in str(caught.value)
    assert reason in str(caught.value)
    assert "kafka.bootstrap_servers" in str(caught.value)


def test_the_command_reports_what_it_created(
    settings: Settings,
    simulator: Simulator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "scorer.toml"
    lines = [f'{key} = "{getattr(settings.topics, key)}"' for key in TopicsSettings.model_fields]
    file.write_text("\n".join([f'kafka.bootstrap_servers = "{settings.kafka.bootstrap_servers}"', "[topics]", *lines]))
    assert main(["topics", "create", "--config", str(file)]) == 0
    assert main(["topics", "create", "--config", str(file)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    shown = said.out.splitlines()
    assert [line.split()[0] for line in shown] == ["created"] * 16 + ["existing"] * 16
    assert shown[0] == f"created   {settings.topics.features} (4 partitions)"

    for name, value in simulator.environment().items():
        monkeypatch.setenv(name, value)
    assert main(["config", "check", "--connect", "--config", str(file)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert f"# topic {settings.topics.features}: 4 partitions" in shown
    assert shown[-2:] == [
        "# ✓ model: model simulator-model: confirmed (HTTP 400 to a request without contacts)",
        "# - endpoint: not checked: callbacks.url is not set",
    ]

    monkeypatch.setenv("STREAM_SCORER_GENESYS__CLIENT_SECRET", "wrong")
    assert main(["config", "check", "--connect", "--config", str(file)]) == 1
    assert "genesys.client_secret" in capsys.readouterr().err


def test_the_command_names_an_unreachable_broker_in_one_line() -> None:
    # In a process of its own: librdkafka writes its log of all clients to the file descriptor, not through Python.
    environment = {**os.environ, "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    command = [sys.executable, "-m", "stream_scorer", "topics", "create"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("stream-scorer: no answer from Kafka at 127.0.0.1:1 within 5 s")
