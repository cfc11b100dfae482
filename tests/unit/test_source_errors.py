"""Errors that the client returns instead of a record: fatal ones, and those that are only logged."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from stream_scorer.core.records import Partition
from stream_scorer.errors import BrokerRefused, BrokerUnavailable
from stream_scorer.kafka.consumer import group_consumer as module
from stream_scorer.kafka.consumer.group_consumer import GroupConsumer


class Reported:
    def __init__(self, code: int) -> None:
        self._code = code

    def error(self) -> KafkaError:
        return KafkaError(self._code, "JoinGroup failed: no")

    def topic(self) -> str:
        return "features"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7


def source_that_reads(code: int, monkeypatch: pytest.MonkeyPatch) -> GroupConsumer:
    class FakeConsumer:
        def __init__(self, config: dict[str, Any]) -> None:
            assert config["group.id"] == "g"

        def consume(self, *_: Any) -> list[Reported]:
            return [Reported(code)]

    monkeypatch.setattr(module, "Consumer", FakeConsumer)
    config = {"group.id": "g", "logger": logging.getLogger("test-source-errors")}
    return GroupConsumer(config, ["features"], wait=lambda _: True)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("INVALID_SESSION_TIMEOUT", "kafka.properties: session.timeout.ms must be between"),
        ("INCONSISTENT_GROUP_PROTOCOL", "check kafka.group_id"),
        ("INVALID_GROUP_ID", "check kafka.group_id"),
    ],
)
def test_a_group_that_does_not_take_us_ends_the_worker(name: str, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BrokerRefused, match="reading topic features as group g: JoinGroup failed: no; ") as caught:
        source_that_reads(getattr(KafkaError, name), monkeypatch).read(1, 0.0)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("name", "right"),
    [("GROUP_AUTHORIZATION_FAILED", "Read on group g"), ("TOPIC_AUTHORIZATION_FAILED", "Read on topic features")],
)
def test_a_right_that_is_missing_is_named(name: str, right: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BrokerRefused, match=f"denies User:ANONYMOUS: {right}; ask the cluster's administrator"):
        source_that_reads(getattr(KafkaError, name), monkeypatch).read(1, 0.0)


def test_that_there_is_nothing_more_is_no_trouble(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert source_that_reads(KafkaError._PARTITION_EOF, monkeypatch).read(1, 0.0) == []
    assert caplog.records == []


@pytest.mark.parametrize("name", ["GROUP_MAX_SIZE_REACHED", "REBALANCE_IN_PROGRESS", "UNKNOWN_MEMBER_ID"])
def test_other_group_errors_are_logged(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert source_that_reads(getattr(KafkaError, name), monkeypatch).read(1, 0.0) == []
    assert [record.getMessage() for record in caplog.records] == ["group g: JoinGroup failed: no"]


def test_a_denied_commit_lookup_names_the_missing_right(monkeypatch: pytest.MonkeyPatch) -> None:
    class FakeConsumer:
        def __init__(self, _config: dict[str, Any]) -> None: ...

        def committed(self, *_: Any) -> None:
            raise KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED, "no"))

    monkeypatch.setattr(module, "Consumer", FakeConsumer)
    config = {"group.id": "g", "security.protocol": "sasl_ssl", "sasl.username": "scorer"}
    source = GroupConsumer(config, ["features"], wait=lambda _: True)
    with pytest.raises(BrokerUnavailable, match="denies User:scorer: Read on group g;"):
        source.committed([Partition("features", 0)])


def test_a_client_that_is_at_its_end_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fenced by another member with its `group.instance.id`, it read nothing more while the worker was ready."""

    class Fenced(Reported):
        def error(self) -> KafkaError:
            return KafkaError(KafkaError._FATAL, "Static consumer fenced")

    class FakeConsumer:
        def __init__(self, _config: dict[str, Any]) -> None: ...

        def consume(self, *_: Any) -> list[Reported]:
            return [Fenced(0)]

    monkeypatch.setattr(module, "Consumer", FakeConsumer)
    config = {"group.id": "g", "group.instance.id": "one"}
    with pytest.raises(
        BrokerRefused, match=r"Static consumer fenced; give each worker a group\.instance\.id of its own"
    ):
        GroupConsumer(config, ["features"], wait=lambda _: True).read(1, 0.0)
    config["group.protocol"] = "consumer"
    with pytest.raises(BrokerRefused, match="a worker that was killed is free when its session has ended"):
        GroupConsumer(config, ["features"], wait=lambda _: True).read(1, 0.0)


class Read(Reported):
    def __init__(self, partition: int, offset: int, code: int | None = None) -> None:
        super().__init__(code or 0)
        self._place = (partition, offset)
        self._is_error = code is not None

    def error(self) -> KafkaError | None:  # type: ignore[override]
        return super().error() if self._is_error else None

    def partition(self) -> int:
        return self._place[0]

    def offset(self) -> int:
        return self._place[1]

    def key(self) -> bytes:
        return b"k"

    value = key

    def headers(self) -> list[tuple[str, bytes]]:
        return []

    def timestamp(self) -> tuple[int, int]:
        return (1, 1)


def test_no_commit_passes_records_that_an_error_in_the_same_read_discards(monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_that_reads(0, monkeypatch)
    place = Partition("features", 0)
    source._end_of_partition.seek(place, 10)
    answers = [Read(0, 10), Read(0, 11), Read(0, 12, KafkaError._PARTITION_EOF)]
    answers.append(Read(1, -1, KafkaError.TOPIC_AUTHORIZATION_FAILED))
    monkeypatch.setattr(source._consumer, "consume", lambda *_: answers)
    with pytest.raises(BrokerRefused):
        source.read(100, 0.0)
    assert source.commit_offset(place, 10) == 10, "the records at 10 and 11 never reached the ledger"
