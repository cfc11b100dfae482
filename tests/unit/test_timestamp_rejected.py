"""A wrong clock of this machine: the broker rejects every timestamp, which is not the fault of the records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from stream_scorer.kafka.producer import transactional_producer
from stream_scorer.kafka.producer.records import Failed, OutRecord, RecordsRejected
from stream_scorer.kafka.producer.sink import TransactionalSink
from stream_scorer.kafka.producer.transactional_producer import RECORD_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable


class Refusing:
    """A producer whose broker answers every record with this code; the commit fails for it, as in librdkafka."""

    raised = KafkaError._INCONSISTENT
    reported = KafkaError.INVALID_TIMESTAMP

    def __init__(self, _config: dict[str, Any]) -> None:
        self._reports: list[Callable[[KafkaError, None], None]] = []

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_args: None

    def produce(self, *_record: Any, on_delivery: Callable[[KafkaError, None], None], **_fields: Any) -> None:
        self._reports.append(on_delivery)

    def commit_transaction(self, _timeout_s: float) -> None:
        raise KafkaException(KafkaError(self.raised, "messages failed"))

    def flush(self, _timeout_s: float) -> None:
        for report in self._reports:
            report(KafkaError(self.reported, "Broker: refused"), None)


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> TransactionalSink:
    monkeypatch.setattr(transactional_producer, "Producer", Refusing)
    made = TransactionalSink(
        {}, monotonic=lambda: 0.0, commit_budget_s=0, late_s=1, own_timeout_s=1, in_time_s=1, on_refused=lambda: None
    )
    assert made.open() is None
    return made


RECORDS = [OutRecord("scores", b"k", b"v", []), OutRecord("audit", b"k", b"v", [])]


def test_the_breaker_opens_and_names_the_wrong_clock(sink: TransactionalSink) -> None:
    failed = sink.publish(RECORDS, [], None)
    assert isinstance(failed, Failed)
    assert "this machine's clock is wrong: set it right" in failed.message
    assert "\n" not in failed.message
    assert not failed.fenced
    assert not sink.is_open


def test_with_several_records_in_a_batch_only_the_transaction_has_the_reason(
    sink: TransactionalSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Refusing, "reported", KafkaError.INVALID_RECORD)
    monkeypatch.setattr(Refusing, "raised", KafkaError.INVALID_TIMESTAMP)
    failed = sink.publish(RECORDS, [], None)
    assert isinstance(failed, Failed)
    assert "this machine's clock is wrong" in failed.message


def test_an_invalid_timestamp_is_no_record_error() -> None:
    assert KafkaError.INVALID_TIMESTAMP not in RECORD_ERRORS


def test_another_rejection_is_a_record_error(sink: TransactionalSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Refusing, "reported", KafkaError.POLICY_VIOLATION)
    refused = sink.publish(RECORDS, [], None)
    assert isinstance(refused, RecordsRejected)
    assert [*refused.errors] == [0, 1]
