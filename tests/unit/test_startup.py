"""A worker that starts while brokers are unreachable or slow waits for them and logs that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from confluent_kafka import KafkaError, KafkaException

from stream_scorer.cli.start_checks import log_start, require_start, wait_for_topics
from stream_scorer.errors import BrokerUnavailable, UsageError
from stream_scorer.kafka.admin import admin_client
from stream_scorer.kafka.consumer.initial_offsets import StartReport
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

TOPIC = "contact-features"


class FarBroker:
    """A client with a slow broker: a request with a shorter time-out gets no response."""

    def __init__(self, answers_after_s: float) -> None:
        self._answers_after_s = answers_after_s
        self.now = 0.0

    def list_topics(self, timeout: float) -> Any:
        self.now += min(timeout, self._answers_after_s)
        if timeout < self._answers_after_s:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return SimpleNamespace(topics={TOPIC: SimpleNamespace(error=None, partitions={0: None})})

    def poll(self, _timeout: float) -> int:
        return 0


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[[FarBroker], list[str]]:
    """Start a worker up to the check of its topics and return its log."""

    def start(broker: FarBroker) -> list[str]:
        monkeypatch.setattr(admin_client, "AdminClient", lambda _: broker)
        monkeypatch.setattr(admin_client, "time", SimpleNamespace(monotonic=lambda: broker.now))
        settings = load_settings(environ={"STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": "far:9092"})
        with structlog.testing.capture_logs() as said:
            wait_for_topics(settings, [TOPIC], ())
        return [f"{line['event']}: {line['detail']}" for line in said]

    return start


def test_an_answer_that_takes_longer_than_the_first_look(start: Callable[[FarBroker], list[str]]) -> None:
    assert start(FarBroker(1.9)) == []


def test_brokers_that_take_long(start: Callable[[FarBroker], list[str]]) -> None:
    (said,) = start(FarBroker(7.0))
    assert said.startswith("waiting for Kafka: no answer from Kafka at far:9092 within 5 s")


def test_brokers_that_never_answer(start: Callable[[FarBroker], list[str]]) -> None:
    broker = FarBroker(1000.0)
    with pytest.raises(BrokerUnavailable, match="no answer from Kafka at far:9092 within 30 s"):
        start(broker)
    assert broker.now == pytest.approx(35.0)


def test_brokers_without_topic_ids_are_one_warning() -> None:
    with structlog.testing.capture_logs() as lines:
        log_start(StartReport())
        log_start(StartReport(without_id=(TOPIC, f"{TOPIC}-retry-1")))
    [line] = lines
    assert (line["log_level"], line["event"]) == ("warning", "topic ids not shown")
    assert line["topics"] == [TOPIC, f"{TOPIC}-retry-1"]


def test_a_new_topic_is_accepted_only_with_the_place_to_read_it_from() -> None:
    with pytest.raises(UsageError, match="--new-topic: add --from earliest"):
        require_start(None, new_topic=True)
    require_start("earliest", new_topic=True)
    require_start(None, new_topic=False)
