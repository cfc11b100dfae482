from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from stream_scorer.errors import SettingsError
from stream_scorer.kafka.client.config import (
    admin_config,
    check_properties,
    consumer_config,
    plain_producer_config,
    producer_config,
    property_warnings,
    reader_config,
    silent_logger,
)
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from stream_scorer.settings import Settings


def settings_with(properties: dict[str, Any] | None = None, **environ: str) -> Settings:
    return load_settings(
        environ={
            "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
            "STREAM_SCORER_KAFKA__INSTANCE_ID": "one",
            "STREAM_SCORER_KAFKA__PROPERTIES": json.dumps(properties or {}),
            **environ,
        }
    )


def test_the_consumer_commits_nothing_by_itself_and_never_starts_over() -> None:
    config = consumer_config(settings_with())
    assert config["enable.auto.commit"] is False
    assert config["auto.offset.reset"] == "error"
    assert config["isolation.level"] == "read_committed"
    assert config["partition.assignment.strategy"] == "cooperative-sticky"
    assert config["group.id"] == "stream-scorer"
    assert config["session.timeout.ms"] == 10_000
    assert config["queued.max.messages.kbytes"] == 16_384
    assert config["allow.auto.create.topics"] is False


def test_a_pause_discards_little_and_a_resumed_partition_is_fetched_soon() -> None:
    """With librdkafka's default a partition stalled for 0.3 s after most pauses, at the cost of a third of the rate."""
    consumer, chosen = consumer_config(settings_with()), consumer_config(settings_with({"queued.min.messages": 7}))
    assert consumer["queued.min.messages"] == 1_000
    assert consumer["fetch.queue.backoff.ms"] == 20
    assert chosen["queued.min.messages"] == 7
    assert reader_config(settings_with(), "any")["queued.min.messages"] == 20_000


def test_the_producer_gives_up_within_its_transaction() -> None:
    settings = settings_with()
    config = producer_config(settings, settings.kafka.transactional_id)
    assert config["transactional.id"] == "stream-scorer-one-scorer"
    assert config["acks"] == "all"
    assert config["enable.idempotence"] is True
    assert config["socket.timeout.ms"] <= config["delivery.timeout.ms"] <= config["transaction.timeout.ms"] == 15_000
    assert config["message.max.bytes"] > 2 * 1024 * 1024


def test_librdkafka_takes_every_configuration() -> None:
    settings = settings_with()
    quiet = silent_logger()
    Consumer(consumer_config(settings, logger=quiet)).close()
    Consumer(reader_config(settings, "group", logger=quiet)).close()
    Producer(producer_config(settings, "id", logger=quiet))
    Producer(plain_producer_config(settings, logger=quiet))
    AdminClient(admin_config(settings, logger=quiet))


def test_a_producer_without_transactions_has_none() -> None:
    config = plain_producer_config(settings_with())
    assert not any("transaction" in name for name in config)
    assert config["enable.idempotence"] is True
    given = plain_producer_config(settings_with({"message.timeout.ms": 5000}))
    assert given["delivery.timeout.ms"] == 5000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("group.id", "theirs"),
        ("transactional.id", "theirs"),
        ("enable.auto.commit", True),
        ("enable.idempotence", False),
        ("enable.partition.eof", True),
        ("enable.ssl.certificate.verification", False),
        ("isolation.level", "read_uncommitted"),
        ("auto.offset.reset", "earliest"),
        ("acks", "1"),
        ("request.required.acks", "1"),
        ("bootstrap.servers", "theirs:1"),
        ("metadata.broker.list", "theirs:1"),
    ],
)
def test_ours_win_where_exactly_once_hangs_on_them_and_say_so(name: str, value: object) -> None:
    plain, changed = settings_with(), settings_with({name: value})
    assert consumer_config(changed) == consumer_config(plain)
    assert producer_config(changed, "id") == producer_config(plain, "id")
    assert property_warnings(changed) == (f"kafka.properties: {name} is not used, stream-scorer sets it itself",)


@pytest.mark.parametrize(
    ("properties", "part"),
    [
        ({"ssl.endpoint.identification.algorithm": "none"}, "can pose as a broker"),
        ({"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN"}, "shows the password or token itself"),
        ({"sasl.oauthbearer.token.endpoint.url": "http://login.example.com/token"}, "which shows the client's secret"),
    ],
)
def test_what_lets_others_on_the_network_in_is_warned_of(properties: dict[str, Any], part: str) -> None:
    [warning] = property_warnings(settings_with(properties))
    assert part in warning
    assert (
        property_warnings(settings_with({"security.protocol": "sasl_plaintext", "sasl.mechanism": "SCRAM-SHA-512"}))
        == ()
    )


def test_other_properties_reach_the_clients_they_are_for() -> None:
    settings = settings_with({"sasl.username": "u", "fetch.wait.max.ms": 7, "linger.ms": 9, "client.id": "mine"})
    consumer, producer, admin = consumer_config(settings), producer_config(settings, "id"), admin_config(settings)
    assert consumer["sasl.username"] == producer["sasl.username"] == admin["sasl.username"] == "u"
    assert consumer["client.id"] == producer["client.id"] == admin["client.id"] == "mine"
    assert consumer["fetch.wait.max.ms"] == 7
    assert producer["linger.ms"] == 9
    assert "fetch.wait.max.ms" not in producer
    assert "linger.ms" not in consumer
    assert property_warnings(settings) == ()


def test_a_number_may_be_a_text_and_is_computed_with_all_the_same() -> None:
    """librdkafka accepts both, and JSON files have both."""
    given = {"batch.size": "500000", "socket.timeout.ms": "9000", "transaction.timeout.ms": "20000"}
    config = producer_config(settings_with(given), "id")
    assert [config[name] for name in given] == [500_000, 9_000, 20_000]


def test_a_property_has_one_name() -> None:
    config = producer_config(settings_with({"message.timeout.ms": 12_000, "compression.codec": "zstd"}), "id")
    assert (config["delivery.timeout.ms"], config["compression.type"]) == (12_000, "zstd")
    assert "message.timeout.ms" not in config
    assert "compression.codec" not in config


@pytest.mark.parametrize(
    ("properties", "environ", "part"),
    [
        ({"transaction.timeout.ms": 9000}, {}, "delivery.timeout.ms (14000) must be more than 0 and at most"),
        ({"delivery.timeout.ms": 0}, {}, "delivery.timeout.ms (0) must be more than 0"),
        ({"socket.timeout.ms": 15001}, {}, "socket.timeout.ms (15001) must be more than 0 and at most"),
        ({"transaction.timeout.ms": "soon"}, {}, "transaction.timeout.ms must be a number of milliseconds, not 'soon'"),
        ({"heartbeat.interval.ms": 5000}, {}, "session.timeout.ms (10000) must be at least three times"),
        ({"max.poll.interval.ms": 9000}, {}, "max.poll.interval.ms (9000) must be at least session.timeout.ms (10000)"),
        ({"max.poll.interval.ms": 12000}, {}, "scoring.revoke_wait_s (5 s) must be at most 4 s"),
        ({}, {"STREAM_SCORER_SCORING__REVOKE_WAIT_S": "101"}, "scoring.revoke_wait_s (101 s) must be at most 100 s"),
        ({}, {"STREAM_SCORER_SCORING__SHUTDOWN_TIMEOUT_S": "301"}, "scoring.shutdown_timeout_s (301 s) must be at"),
        ({"partition.assignment.strategy": "range"}, {}, "must be cooperative-sticky"),
        ({"no.such.property": 1}, {}, 'No such configuration property: "no.such.property"'),
        ({"compression.type": "rar"}, {}, 'Invalid value "rar" for configuration property'),
        (
            {"security.protocol": "ssl", "ssl.ca.location": "/no/such/file"},
            {},
            "kafka.properties: ssl.ca.location: cannot read /no/such/file: No such file or directory",
        ),
        ({"security.protocol": "ssl", "ssl.key.location": __file__}, {}, f"and the file {__file__}"),
        (
            {"security.protocol": "ssl", "ssl.crl.location": "/no\nfile"},
            {},
            r"ssl.crl.location: cannot read /no\nfile: No",
        ),
        ({"security.protocol": "sasl_ssl", "sasl.mechanism": "GSSAPI"}, {}, "kafka.properties: sasl.mechanism: "),
        ({"sasl.mechanism": "OAUTHBEARER"}, {}, "OAUTHBEARER needs sasl.oauthbearer.method oidc"),
        ({"error_cb": "x"}, {}, "error_cb is no property of librdkafka: take it out"),
        ({"default.topic.config": "x"}, {}, "default.topic.config is no property of librdkafka"),
        ({"client.rack": "\ud800"}, {}, "client.rack must be text without NUL that UTF-8 can hold"),
        ({"sasl.password": "cut\0here"}, {}, "sasl.password must be text without NUL"),
        ({"batch.size": "large"}, {}, "batch.size must be a number of bytes, not 'large'"),
    ],
)
def test_properties_that_cannot_work_are_one_line(
    properties: dict[str, Any], environ: dict[str, str], part: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        check_properties(settings_with(properties, **environ))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["CLASSIC", "Classic", "classic"])
def test_the_group_protocol_in_any_case(name: str) -> None:
    settings = settings_with({"group.protocol": name})
    config = consumer_config(settings)
    assert config["partition.assignment.strategy"] == "cooperative-sticky"  # librdkafka's own assigns all at once
    assert config["session.timeout.ms"] == consumer_config(settings_with())["session.timeout.ms"]
    check_properties(settings)


@pytest.mark.parametrize("name", ["CONSUMER", "Consumer"])
def test_the_newer_group_protocol_in_any_case(name: str) -> None:
    settings = settings_with({"group.protocol": name})
    assert "partition.assignment.strategy" not in consumer_config(settings)
    check_properties(settings)


@pytest.mark.parametrize("value", ["CLASSICAL", 7, True, ""])
def test_a_group_protocol_that_is_none(value: object) -> None:
    with pytest.raises(SettingsError, match=r"group\.protocol"):
        check_properties(settings_with({"group.protocol": value}))


def test_the_newer_group_protocol_is_given_no_property_that_the_broker_decides() -> None:
    settings = settings_with({"group.protocol": "consumer"})
    assert "session.timeout.ms" not in consumer_config(settings)
    check_properties(settings)


def test_the_log_of_the_client_goes_to_the_given_logger() -> None:
    logger = logging.getLogger("test")
    assert consumer_config(settings_with(), logger=logger)["logger"] is logger
    assert "logger" not in consumer_config(settings_with())


def test_checking_properties_is_silent_whatever_they_say() -> None:
    # In a process of its own: librdkafka writes to the descriptor, and clients of other tests may do so now.
    program = (
        "from stream_scorer.kafka.client.config import check_properties\n"
        "from stream_scorer.settings import load_settings\n"
        "check_properties(load_settings(flags={'kafka.properties': {'debug': 'all'}}, environ={}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
