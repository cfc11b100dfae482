"""Unreadable records: which errors of the client end a reconciliation, and with which error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import KafkaError

from stream_scorer.errors import BrokerRefused, NotJudged
from stream_scorer.kafka.consumer.log_reader import _within


@dataclass(frozen=True)
class Failed:
    """A message that carries an error of the client."""

    code: int

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 5

    def error(self) -> KafkaError:
        return KafkaError(self.code)


def read(code: int) -> Any:
    messages: Any = [Failed(code)]
    return _within("scores", messages, {0: 9}, {"bootstrap.servers": "kafka-1:9092"})


@pytest.mark.parametrize("code", [KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE])
def test_records_that_were_deleted_before_they_were_read_are_not_judged(code: int) -> None:
    with pytest.raises(NotJudged, match=r"^reading scores: retention deleted records before they were read"):
        read(code)


def test_a_missing_right_is_refused() -> None:
    with pytest.raises(BrokerRefused, match="Read on topic scores"):
        read(KafkaError.TOPIC_AUTHORIZATION_FAILED)


def test_the_end_of_a_partition_and_a_lost_connection_are_no_error() -> None:
    assert read(KafkaError._PARTITION_EOF) == ([], [0])
    assert read(KafkaError._TRANSPORT) == ([], [])
