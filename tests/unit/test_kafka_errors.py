from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from stream_scorer.errors import (
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    ProducerFenced,
    SettingsError,
    StreamScorerError,
)
from stream_scorer.kafka.client.errors import TRANSLATIONS, translate


def all_codes() -> dict[str, int]:
    named = {name: getattr(KafkaError, name) for name in dir(KafkaError) if name.lstrip("_")[:1].isupper()}
    return {name: code for name, code in named.items() if isinstance(code, int)}


def test_every_code_the_client_knows_has_a_translation() -> None:
    codes = all_codes()
    assert len(codes) > 150
    assert [name for name, code in codes.items() if code not in TRANSLATIONS] == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("_TRANSPORT", BrokerUnavailable),
        ("_ALL_BROKERS_DOWN", BrokerUnavailable),
        ("_TIMED_OUT", BrokerUnavailable),
        ("_RESOLVE", BrokerUnavailable),
        ("NOT_ENOUGH_REPLICAS", BrokerUnavailable),
        ("_AUTHENTICATION", BrokerRefused),
        ("SASL_AUTHENTICATION_FAILED", BrokerRefused),
        ("TOPIC_AUTHORIZATION_FAILED", BrokerRefused),
        ("UNKNOWN_TOPIC_OR_PART", BrokerRefused),
        ("_AUTO_OFFSET_RESET", BrokerRefused),
        ("OFFSET_OUT_OF_RANGE", BrokerRefused),
        ("INVALID_REPLICATION_FACTOR", BrokerRefused),
        ("_FENCED", ProducerFenced),
        ("INVALID_PRODUCER_EPOCH", ProducerFenced),
        ("_INVALID_ARG", SettingsError),
        ("_STATE", BrokerError),
    ],
)
def test_who_must_act_and_whether_a_retry_helps(name: str, kind: type[StreamScorerError]) -> None:
    error = translate(KafkaException(KafkaError(getattr(KafkaError, name), "what happened")), "reading offsets of a:1")
    assert type(error) is kind
    assert str(error).startswith("reading offsets of a:1: what happened")
    assert error.retryable == (kind is BrokerUnavailable)


def test_a_translation_is_one_line_without_the_clients_inner_state() -> None:
    said = "a:1/bootstrap: Connect failed:\n refused (after 0ms in state CONNECT, 5 identical error(s) suppressed)"
    error = translate(KafkaError(KafkaError._TRANSPORT, said), "looking")
    assert str(error) == (
        "looking: a:1/bootstrap: Connect failed: refused; check kafka.bootstrap_servers and whether the brokers run"
    )


def test_an_exception_that_carries_no_error_is_still_one_line() -> None:
    error = translate(KafkaException("odd\nthing"), "looking")
    assert (type(error), str(error)) == (BrokerError, "looking: the client has raised an error without a code")
